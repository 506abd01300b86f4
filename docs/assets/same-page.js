// The language menu leads to the same page where both languages have it, and to the first page elsewhere.
document.addEventListener("DOMContentLoaded", () => {
  const links = {};
  document.querySelectorAll("a[hreflang]").forEach((link) => (links[link.hreflang] = link));
  if (!links.en || !links.zh) return;
  const root = (language) => links[language].href.replace(/index\.html$/, "");
  const [here, there] = document.documentElement.lang === "zh" ? ["zh", "en"] : ["en", "zh"];
  const page = location.href.split("#")[0].slice(root(here).length);
  if (/^(getting-started\.html|from-nlp-to-cv\/.+)$/.test(page)) links[there].href = root(there) + page;
});
