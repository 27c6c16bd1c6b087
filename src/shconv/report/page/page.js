// Tables: a click on a heading sorts, "copy" puts the table on the clipboard.
for (const table of document.querySelectorAll("table.plain")) {
  const value = (row, place) => row.cells[place].textContent.trim();
  const number = (text) => parseFloat(text.replace(/[,\u202f\u00a0]/g, "").replace("\u2212", "-"));
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    head.setAttribute("aria-sort", "none");
    head.tabIndex = 0;
    const sort = () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [value(a, place), value(b, place)];
        const [m, n] = [number(x), number(y)];
        const known = !isNaN(m) - !isNaN(n);
        if (known) return -known; // what is no number stays at the end
        return (up ? 1 : -1) * (isNaN(m) ? x.localeCompare(y) : m - n);
      });
      table.tBodies[0].append(...rows);
    };
    head.onclick = sort;
    head.onkeydown = (event) => { if (event.key === "Enter") sort(); };
  });
}
for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.onclick = () => {
    const range = document.createRange();
    range.selectNode(document.getElementById(button.dataset.of).querySelector("table"));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    document.execCommand("copy");
    getSelection().removeAllRanges();
    button.textContent = "copied";
  };
}
