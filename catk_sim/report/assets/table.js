// The table of scenarios: its headings sort it.

function sortable(table) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button"; button.append(...heading.childNodes); heading.append(button);
    button.addEventListener("click", () => {
      const direction = heading.getAttribute("aria-sort") === "descending" ? 1 : -1;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", direction < 0 ? "descending" : "ascending");
      body.append(...[...body.rows].sort((a, b) => compareCells(a.cells[column], b.cells[column], direction)));
    });
  });
}

// Figures by value, those that are not defined last; names by letters.
function compareCells(a, b, direction) {
  if (a.dataset.value === undefined) return -direction * b.textContent.localeCompare(a.textContent);
  if (a.dataset.value === "" || b.dataset.value === "") return (a.dataset.value === "") - (b.dataset.value === "");
  return direction * (Number(a.dataset.value) - Number(b.dataset.value));
}
