// The page: what is folded away is drawn when it is opened, and everything is drawn before printing.

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const drawn = new WeakMap();

  function draw(holder) {
    // What is folded may have a width all the same, but is not worth drawing yet.
    if (!holder.clientWidth || holder.closest("details:not([open])")) return;
    if (holder.dataset.charts) {
      if (drawn.get(holder) === holder.clientWidth) return;
      drawn.set(holder, holder.clientWidth);
      drawFigure(holder, data.charts[Number(holder.dataset.charts)]);
    } else if (!drawn.has(holder)) {
      drawn.set(holder, true);
      drawGraph(holder, data.graphs[Number(holder.dataset.graph)], data.texts);
    }
  }

  const holders = [...document.querySelectorAll("[data-charts], [data-graph]")];
  const sizes = new ResizeObserver((entries) => requestAnimationFrame(() => entries.forEach((e) => draw(e.target))));
  holders.forEach((holder) => { draw(holder); sizes.observe(holder); });

  const folds = [...document.querySelectorAll("details.behaviour")];
  folds.forEach((fold) => fold.addEventListener("toggle", () => fold.querySelectorAll("[data-charts], [data-graph]").forEach(draw)));
  document.querySelectorAll("[data-fold]").forEach((button) =>
    button.addEventListener("click", () => folds.forEach((fold) => { fold.open = button.dataset.fold === "open"; })));

  function follow() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target?.matches("details")) {
      target.open = true;
      requestAnimationFrame(() => target.scrollIntoView());
    }
  }
  addEventListener("hashchange", follow);
  follow();

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...folds, ...document.querySelectorAll("details.rules, details.fold")].filter((fold) => !fold.open);
    closed.forEach((fold) => { fold.open = true; });
    holders.forEach(draw);
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
