// Finding, filtering and sorting the rows of behaviours.

function behaviourList(list) {
  const rows = [...list.querySelectorAll("details.behaviour")], shown = { kind: null, text: "", by: null, down: false };
  const buttons = [...document.querySelectorAll(".tally button[data-kind]")], heads = [...list.querySelectorAll("[data-sort]")];
  const status = document.querySelector(".list-tools .found"), find = document.querySelector("[data-find]");

  function filter() {
    let count = 0;
    for (const row of rows) {
      const fits = (!shown.kind || row.dataset.kind === shown.kind) && row.querySelector("summary").textContent.toLowerCase().includes(shown.text);
      row.hidden = !fits;
      count += fits;
    }
    status.textContent = count < rows.length ? `${count} of ${rows.length} behaviours` : "";
  }

  // What has no value comes last, whichever way it is sorted.
  function value(row) {
    const given = shown.by === "behaviour" ? row.dataset.behaviour.toLowerCase() : row.dataset[shown.by === "verdict" ? "place" : shown.by];
    return shown.by === "behaviour" ? given : given === "" ? null : Number(given);
  }

  function sort() {
    const order = rows.map((row) => [value(row), row]).sort(([a, x], [b, y]) => {
      if (a === null || b === null) return (a === null) - (b === null) || x.dataset.place - y.dataset.place;
      return (a < b ? -1 : a > b ? 1 : 0) * (shown.down ? -1 : 1) || x.dataset.place - y.dataset.place;
    });
    list.append(...order.map((e) => e[1]));
    for (const head of heads) head.dataset.sorted = head.dataset.sort === shown.by ? (shown.down ? "down" : "up") : "";
  }

  for (const button of buttons)
    button.addEventListener("click", () => {
      shown.kind = shown.kind === button.dataset.kind ? null : button.dataset.kind;
      buttons.forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.kind === shown.kind)));
      filter();
    });
  for (const head of heads)
    head.addEventListener("click", () => {
      const { sort: by, down } = head.dataset;
      Object.assign(shown, { by, down: shown.by === by ? !shown.down : down === "1" });
      sort();
    });
  find?.addEventListener("input", () => { shown.text = find.value.trim().toLowerCase(); filter(); });
  document.querySelectorAll("[data-fold]").forEach((button) =>
    button.addEventListener("click", () => rows.forEach((row) => { if (!row.hidden) row.open = button.dataset.fold === "open"; })));
  return { show(row) { if (row.hidden) { Object.assign(shown, { kind: null, text: "" }); if (find) find.value = ""; buttons.forEach((b) => b.setAttribute("aria-pressed", "false")); filter(); } row.open = true; } };
}
