// Zooming and panning inside a drawing: buttons, keys, the wheel with Ctrl, dragging, and two fingers.

function zoomable(canvas, layer, onChange) {
  const most = 8, view = { x: 0, y: 0, scale: 1 }, fingers = new Map();
  let dragged = false;

  function put() {
    layer.setAttribute("transform", `translate(${view.x.toFixed(2)} ${view.y.toFixed(2)}) scale(${view.scale.toFixed(4)})`);
    // A finger scrolls the page until there is something to pan.
    canvas.style.touchAction = view.scale > 1.01 ? "none" : "pan-y";
    canvas.classList.toggle("near", view.scale >= 1.7);
    onChange?.(view);
  }

  // From the screen into the drawing's own units.
  function inside(event) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(canvas.getScreenCTM().inverse());
    return [at.x, at.y];
  }

  function by(factor, centre) {
    const box = canvas.viewBox.baseVal, [x, y] = centre || [box.x + box.width / 2, box.y + box.height / 2];
    const scale = Math.min(most, Math.max(1, view.scale * factor)), real = scale / view.scale;
    Object.assign(view, { x: x - real * (x - view.x), y: y - real * (y - view.y), scale });
    if (scale === 1) view.x = view.y = 0;
    put();
  }

  function to(x, y, scale) {
    const box = canvas.viewBox.baseVal;
    Object.assign(view, { scale, x: box.x + box.width / 2 - scale * x, y: box.y + box.height / 2 - scale * y });
    put();
  }

  function reset() {
    Object.assign(view, { x: 0, y: 0, scale: 1 });
    put();
  }

  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    by(Math.exp(-event.deltaY / 300), inside(event));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => { if (!event.target.closest(".node")) by(1.6, inside(event)); });
  canvas.addEventListener("pointerdown", (event) => { fingers.set(event.pointerId, inside(event)); dragged = false; });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = inside(event), others = [...fingers].filter(([id]) => id !== event.pointerId);
    if (others.length === 1) {
      const still = others[0][1], away = (p) => Math.hypot(p[0] - still[0], p[1] - still[1]);
      by(away(now) / Math.max(1, away(before)), [(now[0] + still[0]) / 2, (now[1] + still[1]) / 2]);
      dragged = true;
    } else if (Math.hypot(now[0] - before[0], now[1] - before[1]) > (dragged ? 0 : 4) && view.scale > 1) {
      dragged = true;
      canvas.setPointerCapture(event.pointerId);
      view.x += now[0] - before[0];
      view.y += now[1] - before[1];
      put();
    } else if (!dragged) return;
    fingers.set(event.pointerId, now);
  });
  for (const end of ["pointerup", "pointercancel", "pointerleave"]) canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
  // What ends a drag is no click.
  canvas.addEventListener("click", (event) => { if (dragged) event.stopPropagation(); dragged = false; }, true);
  put();
  return { by, to, reset, view };
}
