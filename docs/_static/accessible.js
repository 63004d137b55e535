// The theme's pages for those who use a keyboard or a screen reader: what scrolls can be reached, and parts have names.
addEventListener("DOMContentLoaded", () => {
  for (const caption of document.querySelectorAll('.caption[role="heading"]')) caption.setAttribute("aria-level", "2");
  document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "Pages");
  document.querySelector(".toc-drawer")?.setAttribute("aria-label", "On this page");
  if (!document.querySelector("h1")) {
    const title = Object.assign(document.createElement("h1"), { textContent: document.title, className: "visually-hidden" });
    document.querySelector("article")?.prepend(title);
  }
  for (const box of document.querySelectorAll("pre, .table-wrapper, .math, .output_area, .cell_output")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
});
