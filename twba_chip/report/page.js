// Pressing a header sorts its table by that column; pressing it again reverses the order. Cells without a value stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      headers.forEach(other => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const value = row => row.cells[column].dataset.value;
      const compare = (a, b) => !value(a) - !value(b) || sign * (value(a) - value(b));
      body.append(...[...body.rows].sort(compare));
    });
  });
}

// Mark tables that are wider than the page, because a phone's browser may show no bar.
const mark = () => document.querySelectorAll(".scroll").forEach(
  box => box.classList.toggle("wide", box.scrollWidth > box.clientWidth));
addEventListener("resize", mark);
mark();
