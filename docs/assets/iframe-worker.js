// The search runs in a worker, and browsers give none to a page that was opened from disk.
// There a hidden frame takes its place: same script, same messages.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.onmessage = this.onerror = null;
      this.waiting = []; // messages sent before the script is there
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.srcdoc = "<!doctype html><title>worker</title>";
      this.frame.addEventListener("load", () => this.start(new URL(address, location)), { once: true });
      document.body.append(this.frame);
    }

    start(address) {
      const inside = this.frame.contentWindow;
      // Later, never within the call that sends: the search's own bookkeeping counts on it.
      inside.postMessage = (data) =>
        setTimeout(() => this.tell("message", new MessageEvent("message", { data })));
      const script = inside.document.createElement("script");
      script.addEventListener("error", () => this.tell("error", new ErrorEvent("error")));
      script.addEventListener("load", () => {
        const waiting = this.waiting;
        this.waiting = null;
        waiting.forEach((data) => this.postMessage(data));
      });
      script.src = address;
      inside.document.body.append(script);
    }

    tell(kind, event) {
      this["on" + kind]?.(event);
      this.dispatchEvent(event);
    }

    postMessage(data) {
      if (this.waiting) {
        this.waiting.push(data);
        return;
      }
      setTimeout(() => {
        const inside = this.frame.contentWindow;
        // Cloned by the frame, so that the data are of its own kinds of object.
        inside?.dispatchEvent(new inside.MessageEvent("message", { data: inside.structuredClone(data) }));
      });
    }

    terminate() {
      this.frame.remove();
    }
  };
}
