// Sorts and filters the tables of methods; nothing is fetched, and without it the page is whole.
(() => {
  const tables = [...document.querySelectorAll("table.methods")];
  const text = cell => [...cell.childNodes].filter(n => n.nodeType === 3)
    .map(n => n.textContent).join("").trim();
  const number = cell => parseFloat(text(cell).replace("\u2212", "-"));
  const compare = (one, other) => {
    const [a, b] = [number(one), number(other)];
    return isNaN(a) && isNaN(b) ? text(one).localeCompare(text(other)) : a - b;
  };

  const sort = (table, head, column) => {
    const falling = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const body = table.tBodies[0], isNumber = head.classList.contains("num");
    const missing = row => isNumber && isNaN(number(row.cells[column]));
    body.append(...[...body.rows].sort((a, b) => missing(a) - missing(b)
      || compare(a.cells[column], b.cells[column]) * (falling ? -1 : 1)));
  };

  for (const table of tables) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(table, head, column));
      head.append(button);
    });
  }

  const filter = document.getElementById("filter"), shown = document.getElementById("shown");
  filter.closest("p").hidden = false;
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    for (const table of tables) {
      const rows = [...table.tBodies[0].rows];
      for (const row of rows) row.hidden = !text(row.cells[0]).toLowerCase().includes(wanted);
      shown.value = `${rows.filter(row => !row.hidden).length} of ${rows.length} methods`;
    }
  });
})();
