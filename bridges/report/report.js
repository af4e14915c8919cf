// The page: what is folded away is drawn when it is opened, and everything is drawn before printing.

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const drawn = new WeakMap();

  function draw(holder) {
    if (!holder.clientWidth) return;
    if (holder.dataset.charts) {
      if (drawn.get(holder) === holder.clientWidth) return;
      drawn.set(holder, holder.clientWidth);
      drawFigure(holder, data.charts[Number(holder.dataset.charts)]);
    } else if (!drawn.has(holder)) {
      drawn.set(holder, true);
      drawGraph(holder, data.graphs[Number(holder.dataset.graph)]);
    }
  }

  const holders = [...document.querySelectorAll("[data-charts], [data-graph]")];
  const sizes = new ResizeObserver((entries) => requestAnimationFrame(() => entries.forEach((e) => draw(e.target))));
  holders.forEach((holder) => { draw(holder); sizes.observe(holder); });

  const folds = [...document.querySelectorAll("details.behaviour")];
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
    closed = folds.filter((fold) => !fold.open);
    closed.forEach((fold) => { fold.open = true; });
    holders.forEach(draw);
  });
  addEventListener("afterprint", () => closed.forEach((fold) => { fold.open = false; }));
})();
