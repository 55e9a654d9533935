// On a phone a row of a list is a card (console.css): every cell is told the heading of its column.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("#result_list, table.cards-on-phones")) {
    const headings = [...table.querySelectorAll("thead th")].map((each) => (each.querySelector(".text") || each).textContent.trim());
    for (const row of table.querySelectorAll("tbody tr")) {
      [...row.children].forEach((cell, column) => { cell.dataset.heading = headings[column] || ""; });
    }
  }
});
