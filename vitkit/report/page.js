"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (selector, within = document) => within.querySelector(selector);
  const read = (node) => JSON.parse(node.textContent);
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)}\u00a0%`;

  /* Light, dark, or as the system has it. */
  const THEMES = ["auto", "light", "dark"];
  const KEPT = "vitkit-theme";
  const themeButton = one("#theme");

  function setTheme(theme) {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    themeButton.textContent = `Theme: ${theme}`;
    themeButton.setAttribute("aria-label", `Theme: ${theme}. Press to change`);
    themeButton.dataset.now = theme;
  }

  function keptTheme() {
    try {
      const kept = localStorage.getItem(KEPT);
      return THEMES.includes(kept) ? kept : "auto";
    } catch {
      return "auto"; // a page from disk may have no store
    }
  }

  setTheme(keptTheme());
  themeButton.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(themeButton.dataset.now) + 1) % THEMES.length];
    setTheme(next);
    try {
      localStorage.setItem(KEPT, next);
    } catch {
      /* It lasts as long as the page then. */
    }
  });

  /* What a figure shows, as columns, and from these as files. */
  const special = {};

  function columnsOf(figure) {
    if (special[figure.id]) return special[figure.id]();
    const data = read(one(".data", figure));
    if (data.columns) return data.columns;
    const columns = { line: [], [data.axes.x]: [], [data.axes.y]: [] };
    for (const line of data.lines) {
      line.x.forEach((x, i) => {
        columns.line.push(line.name);
        columns[data.axes.x].push(x);
        columns[data.axes.y].push(line.y[i]);
      });
    }
    return columns;
  }

  function csvOf(columns) {
    const quoted = (value) => {
      const text = value === null || value === undefined ? "" : String(value);
      return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
    };
    const names = Object.keys(columns);
    const length = Math.max(0, ...names.map((name) => columns[name].length));
    const lines = [names.map(quoted).join(",")];
    for (let i = 0; i < length; i += 1) {
      lines.push(names.map((name) => quoted(columns[name][i])).join(","));
    }
    return `${lines.join("\n")}\n`;
  }

  function save(figure, kind) {
    const columns = columnsOf(figure);
    const text = kind === "csv" ? csvOf(columns) : `${JSON.stringify(columns, null, 1)}\n`;
    const type = kind === "csv" ? "text/csv" : "application/json";
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = `${figure.id}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  for (const button of all("[data-save]")) {
    button.addEventListener("click", () => save(button.closest("figure"), button.dataset.save));
  }

  for (const button of all("[data-copy]")) {
    button.addEventListener("click", async () => {
      const code = one("code", button.parentElement);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code); // then it is one key to copy
        button.textContent = "Selected";
      }
      setTimeout(() => {
        button.textContent = "Copy";
      }, 1500);
    });
  }

  /* Tables by the column whose heading was chosen. */
  function sortTable(table, head) {
    const heads = [...head.parentElement.children];
    const index = heads.indexOf(head);
    const numeric = head.classList.contains("number");
    const before = head.getAttribute("aria-sort");
    const falling = before === "none" ? numeric : before === "ascending";
    heads.filter((h) => h.hasAttribute("aria-sort")).forEach((h) => h.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const value = (row) => row.children[index].dataset.v;
    const number = (row) => (Number.isNaN(Number(value(row))) ? -Infinity : Number(value(row)));
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => {
      const order = numeric
        ? number(a) - number(b)
        : value(a).localeCompare(value(b), undefined, { numeric: true });
      return falling ? -order : order;
    });
    table.tBodies[0].append(...rows);
  }

  for (const table of all("[data-sortable]")) {
    for (const head of all("th[aria-sort]", table)) {
      one("button", head).addEventListener("click", () => sortTable(table, head));
    }
  }

  /* Curves: a line that follows the pointer or the arrow keys, and what the curves are there. */
  function curves(plot) {
    const figure = plot.closest("figure");
    const data = read(one(".data", figure));
    const readout = one(".readout", figure);
    const [low, high, log] = data.x;
    const measure = (x) => (log ? Math.log10(x) : x);
    const place = (x) => (measure(x) - measure(low)) / (measure(high) - measure(low));
    const xs = [...new Set(data.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    const cursor = make("div", "cursor");
    cursor.hidden = true;
    plot.append(cursor);
    let now = -1;

    const nearest = (values, where) => {
      let best = 0;
      values.forEach((x, i) => {
        if (Math.abs(place(x) - where) < Math.abs(place(values[best]) - where)) best = i;
      });
      return best;
    };
    const shown = (y) => (data.percent ? percent(y, 2) : Number(y.toPrecision(4)).toString());

    function show(index) {
      now = clamp(index, 0, xs.length - 1);
      const where = place(xs[now]);
      cursor.hidden = false;
      cursor.style.left = `${100 * where}%`;
      const parts = data.lines
        .map((line) => [line, nearest(line.x, where)])
        .filter(([line, i]) => Math.abs(place(line.x[i]) - where) < 0.03)
        .map(([line, i]) => `${line.name} ${shown(line.y[i])}`);
      const x = Math.abs(xs[now]) >= 10 ? Math.round(xs[now]) : Number(xs[now].toPrecision(3));
      readout.textContent = `${data.axes.x} ${x.toLocaleString("en")}: ${parts.join("; ")}`;
    }

    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      show(nearest(xs, (event.clientX - box.left) / box.width));
    });
    plot.addEventListener("pointerleave", () => {
      cursor.hidden = true;
    });
    plot.addEventListener("blur", () => {
      cursor.hidden = true;
    });
    plot.addEventListener("keydown", (event) => {
      const stride = event.shiftKey ? 10 : 1;
      const to = {
        ArrowLeft: now - stride,
        ArrowRight: now + stride,
        Home: 0,
        End: xs.length - 1,
      }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      show(to);
    });
  }

  all("[data-lines]").forEach(curves);

  /* The confusion matrix: its order, its keys, its images. */
  const matrix = one("[data-matrix]");
  if (matrix) {
    const orders = read(one(".orders", matrix.closest("figure")));
    one("[data-order]").addEventListener("change", (event) => {
      const rank = new Map(orders[event.target.value].map((number, i) => [String(number), i]));
      const body = matrix.tBodies[0];
      const rows = [...body.rows].sort((a, b) => rank.get(a.dataset.r) - rank.get(b.dataset.r));
      body.append(...rows);
      for (const row of [matrix.tHead.rows[0], ...rows]) {
        row.append(...all("[data-c]", row).sort((a, b) => rank.get(a.dataset.c) - rank.get(b.dataset.c)));
      }
    });

    // One stop for the Tab key; arrow keys inside.
    const cells = all("[data-cell]", matrix);
    const stop = (button) => cells.forEach((cell) => {
      cell.tabIndex = cell === button ? 0 : -1;
    });
    if (cells.length) stop(cells[0]);
    matrix.addEventListener("focusin", (event) => {
      if (event.target.dataset.cell) stop(event.target);
    });
    matrix.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      const cell = event.target.closest("td");
      if (!step || !cell) return;
      event.preventDefault();
      const rows = [...matrix.tBodies[0].rows];
      let row = rows.indexOf(cell.parentElement) + step[0];
      let column = cell.cellIndex + step[1];
      while (rows[row] && column > 0 && rows[row].cells[column]) {
        const button = one("button", rows[row].cells[column]);
        if (button) {
          button.focus();
          return;
        }
        row += step[0];
        column += step[1];
      }
    });
  }

  const galleryNode = one("#gallery");
  const gallery = galleryNode ? read(galleryNode) : null;

  function thumbnail(picture, index) {
    const [place, right, said, confidence] = picture;
    const item = make("li");
    const image = make("span", "thumb");
    image.setAttribute("role", "img");
    image.setAttribute(
      "aria-label",
      `image ${place}: ${gallery.names[right]}, predicted as ${gallery.names[said]}, ${percent(confidence)}`,
    );
    const column = index % gallery.columns;
    const row = Math.floor(index / gallery.columns);
    const share = (number, count) => (count > 1 ? (100 * number) / (count - 1) : 0);
    image.style.backgroundPosition = `${share(column, gallery.columns)}% ${share(row, gallery.rows)}%`;
    item.append(image, make("small", "", percent(confidence)), make("small", "muted", `no. ${place}`));
    return item;
  }

  function showCell(button, follow = true) {
    if (!gallery) return;
    const [right, said] = button.dataset.cell.split(",").map(Number);
    const count = Number(button.dataset.count);
    const chosen = gallery.pictures
      .map((picture, index) => [picture, index])
      .filter(([picture]) => picture[1] === right && picture[2] === said);
    one("#cell-title").textContent = right === said
      ? `${gallery.names[right]}, rightly predicted`
      : `${gallery.names[right]} taken for ${gallery.names[said]}`;
    const order = right === said ? "the least certain first" : "the most certain first";
    one("#cell-note").textContent = chosen.length
      ? `${chosen.length.toLocaleString("en")} of ${count.toLocaleString("en")} images, ${order}`
      : "No pictures of this cell are kept.";
    const falling = (a, b) => b[0][3] - a[0][3];
    chosen.sort(right === said ? (a, b) => -falling(a, b) : falling);
    one("#cell-images").replaceChildren(...chosen.map(([picture, index]) => thumbnail(picture, index)));
    all("[data-cell][aria-pressed]").forEach((other) => other.removeAttribute("aria-pressed"));
    button.setAttribute("aria-pressed", "true");
    if (follow) one("#cell").scrollIntoView({ block: "nearest" });
  }

  for (const button of all("[data-cell]")) {
    button.addEventListener("click", () => showCell(button));
  }

  // To begin with, what is confused most.
  const confused = all("[data-cell]").filter((button) => {
    const [right, said] = button.dataset.cell.split(",");
    return right !== said;
  });
  confused.sort((a, b) => Number(b.dataset.count) - Number(a.dataset.count));
  if (confused.length) showCell(confused[0], false);

  /* The attention explorer. */
  const MAGMA = [
    [0, 0, 4], [24, 15, 61], [68, 15, 118], [114, 31, 129], [158, 47, 127],
    [205, 64, 113], [241, 96, 93], [253, 150, 104], [254, 202, 141], [252, 253, 191],
  ];

  function colour(share) {
    const at = clamp(share, 0, 1) * (MAGMA.length - 1);
    const low = Math.min(Math.floor(at), MAGMA.length - 2);
    return MAGMA[low].map((value, i) => value + (at - low) * (MAGMA[low + 1][i] - value));
  }

  function paint(canvas, values, opacity) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    const most = Math.max(...values, 1e-12);
    values.forEach((value, i) => {
      const share = value / most;
      image.data.set([...colour(share), opacity === undefined ? 255 : opacity + 90 * share], 4 * i);
    });
    context.putImageData(image, 0, 0);
  }

  function bytes(text) {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  }

  function explorer(data) {
    const [rows, columns] = data.grid;
    const { tokens, prefix, layers, heads } = data;
    const patches = rows * columns;
    const MEAN = heads.length;
    const decoded = new Map();
    const view = one("#view");
    const note = one("#view-note");
    const box = one("#view-patch");
    const over = make("canvas", "over");
    over.width = columns;
    over.height = rows;
    over.hidden = true;
    view.append(over);
    let scene = 0;
    let token = prefix + Math.floor(rows / 2) * columns + Math.floor(columns / 2);
    let laid = null;

    function mapsOf(number) {
      if (!decoded.has(number)) {
        const peaks = new Float32Array(bytes(data.peaks[number]).buffer);
        decoded.set(number, { maps: bytes(data.maps[number]), peaks });
      }
      return decoded.get(number);
    }

    function weights(layer, head) {
      const { maps, peaks } = mapsOf(scene);
      const chosen = head === MEAN ? heads.map((_, i) => i) : [head];
      const sum = new Array(patches).fill(0);
      for (const each of chosen) {
        const row = (layer * heads.length + each) * tokens + token;
        const unit = peaks[row] / 255 / chosen.length;
        for (let i = 0; i < patches; i += 1) sum[i] += maps[row * tokens + prefix + i] * unit;
      }
      return sum;
    }

    const where = (patch) => `row ${Math.floor(patch / columns) + 1}, column ${(patch % columns) + 1}`;
    const asked = () => (token < prefix ? data.fronts[token] : where(token - prefix));
    const named = (layer, head) =>
      `layer ${layers[layer] + 1}, ${head === MEAN ? "mean of the heads shown" : `head ${heads[head] + 1}`}`;

    const grid = one("#heads");
    const tiles = [];
    grid.append(make("span", "corner"));
    heads.forEach((head) => grid.append(make("span", "head-name", `head ${head + 1}`)));
    grid.append(make("span", "head-name", "mean"));
    layers.forEach((layer, l) => {
      grid.append(make("span", "layer-name", `layer ${layer + 1}`));
      for (let h = 0; h <= heads.length; h += 1) {
        const button = make("button", h === MEAN ? "map mean" : "map");
        button.type = "button";
        const canvas = make("canvas");
        canvas.width = columns;
        canvas.height = rows;
        button.append(canvas);
        button.addEventListener("click", () => {
          laid = laid && laid[0] === l && laid[1] === h ? null : [l, h];
          draw();
        });
        grid.append(button);
        tiles.push({ button, canvas, l, h });
      }
    });

    function draw() {
      let most = { weight: -1 };
      for (const { button, canvas, l, h } of tiles) {
        const values = weights(l, h);
        paint(canvas, values);
        const patch = values.indexOf(Math.max(...values));
        const said = `${named(l, h)}: most at ${where(patch)}, ${percent(values[patch])}`;
        button.setAttribute("aria-label", `${said}. Press to lay it over the picture`);
        button.title = said;
        button.setAttribute("aria-pressed", String(Boolean(laid && laid[0] === l && laid[1] === h)));
        if (h !== MEAN && values[patch] > most.weight) most = { weight: values[patch], patch, l, h };
      }
      one("#view-name").textContent = data.names[scene];
      note.textContent = `From ${asked()}: ${named(most.l, most.h)} looks hardest, `
        + `${percent(most.weight)} at ${where(most.patch)}.`;
      const patch = token - prefix;
      box.hidden = patch < 0;
      box.style.left = `${(100 * (patch % columns)) / columns}%`;
      box.style.top = `${(100 * Math.floor(patch / columns)) / rows}%`;
      box.style.width = `${100 / columns}%`;
      box.style.height = `${100 / rows}%`;
      over.hidden = !laid;
      if (laid) paint(over, weights(...laid), 110);
      all("[data-token]").forEach((button) => {
        button.setAttribute("aria-pressed", String(Number(button.dataset.token) === token));
      });
    }

    function ask(next) {
      if (next === token) return;
      token = next;
      draw();
    }

    function pointed(event) {
      const area = view.getBoundingClientRect();
      const row = clamp(Math.floor(((event.clientY - area.top) / area.height) * rows), 0, rows - 1);
      const column = clamp(Math.floor(((event.clientX - area.left) / area.width) * columns), 0, columns - 1);
      ask(prefix + row * columns + column);
    }

    view.addEventListener("pointermove", pointed);
    view.addEventListener("pointerdown", pointed);
    view.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!step) return;
      event.preventDefault();
      const patch = Math.max(token - prefix, 0);
      const row = clamp(Math.floor(patch / columns) + step[0], 0, rows - 1);
      const column = clamp((patch % columns) + step[1], 0, columns - 1);
      ask(prefix + row * columns + column);
    });
    for (const button of all("[data-token]")) {
      button.addEventListener("click", () => ask(Number(button.dataset.token)));
    }
    for (const button of all("[data-scene]")) {
      button.addEventListener("click", () => {
        all("[data-scene]").forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
        const image = one("#view-image");
        image.classList.replace(`scene-${scene}`, `scene-${button.dataset.scene}`);
        scene = Number(button.dataset.scene);
        view.setAttribute("aria-label", `${data.names[scene]}. Arrow keys move from patch to patch`);
        draw();
      });
    }

    special.explorer = () => {
      const out = { layer: [], head: [], row: [], column: [], weight: [] };
      for (const { l, h } of tiles.filter((tile) => tile.h !== MEAN)) {
        weights(l, h).forEach((weight, patch) => {
          out.layer.push(layers[l] + 1);
          out.head.push(heads[h] + 1);
          out.row.push(Math.floor(patch / columns) + 1);
          out.column.push((patch % columns) + 1);
          out.weight.push(Number(weight.toPrecision(5)));
        });
      }
      return out;
    };
    draw();
  }

  const attention = one("#attention-data");
  if (attention) explorer(read(attention));
})();
