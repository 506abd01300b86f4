// The language menu would read each language's sitemap, which a page that was opened from disk may not.
if (location.protocol === "file:") {
  document.querySelectorAll("link[rel=alternate][hreflang]").forEach((link) => link.remove());
}
