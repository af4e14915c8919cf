// The page: what is folded away is drawn when it is opened, and everything is drawn before printing.

(() => {
  const asRead = document.documentElement.outerHTML;
  const data = JSON.parse(document.getElementById("data").textContent);
  const page = { texts: data.texts, windows: data.windows, places: data.places, asRead };
  const store = nameStore(data.run, data.names), drawn = new WeakMap();

  function draw(holder) {
    // What is folded may have a width all the same, but is not worth drawing yet.
    const width = holder.clientWidth;
    if (!width || holder.closest("details:not([open])")) return;
    const before = drawn.get(holder);
    if (before?.width === width) return;
    if (holder.dataset.charts) {
      drawn.set(holder, { width });
      drawFigure(holder, data.charts[Number(holder.dataset.charts)]);
    } else if (before) {
      before.width = width;
      before.graph.refit();
    } else drawn.set(holder, { width, graph: drawGraph(holder, data.graphs[Number(holder.dataset.graph)], page, store) });
  }

  const holders = [...document.querySelectorAll("[data-charts], [data-graph]")];
  const sizes = new ResizeObserver((entries) => requestAnimationFrame(() => entries.forEach((e) => draw(e.target))));
  holders.forEach((holder) => { draw(holder); sizes.observe(holder); });

  const list = document.getElementById("list"), rows = list && behaviourList(list);
  const folds = [...document.querySelectorAll("details.behaviour, details.more")];
  folds.forEach((fold) => fold.addEventListener("toggle", () => fold.querySelectorAll("[data-charts], [data-graph]").forEach(draw)));

  function follow() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target?.matches("details.behaviour")) {
      rows.show(target);
      requestAnimationFrame(() => target.scrollIntoView());
    }
  }
  addEventListener("hashchange", follow);
  follow();

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details.behaviour, details.fold, #meanings")].filter((fold) => !fold.open);
    closed.forEach((fold) => { fold.open = true; });
    // Charts again at the width of the paper, so that their text is as large there.
    document.body.classList.add("printing");
    holders.forEach(draw);
  });
  addEventListener("afterprint", () => {
    document.body.classList.remove("printing");
    closed.forEach((fold) => { fold.open = false; });
    holders.forEach(draw);
  });
})();
