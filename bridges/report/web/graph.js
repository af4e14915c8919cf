// A circuit's core as a drawing that can be read with a mouse, a finger or the keyboard.

let graphsDrawn = 0;

function drawGraph(holder, data, page, store) {
  const body = el("div", { class: "graph-body" }), frame = el("div", { class: "canvas" });
  const view = { id: (graphsDrawn += 1), page, store, k: data.core, extra: [], circuit: null, canvas: null, zoom: null, held: null };
  let core = null, drawn = [], links = [], current = 0;
  Object.assign(view, { release, find, point, resize, change, tall });
  const panel = inspector(view);
  body.append(frame, panel.panel);

  function change(model) {
    view.circuit = readCircuit(data.circuits.find((c) => c.model === model));
    Object.assign(view, { k: Math.min(data.core, view.circuit.nodes.length), extra: [] });
    holder.replaceChildren(graphTools(view, data), body, key(view.circuit));
    build();
  }

  // A slider tells more often than can be drawn.
  function resize(k) {
    if (view.waiting) cancelAnimationFrame(view.waiting);
    Object.assign(view, { k, extra: [], waiting: requestAnimationFrame(build) });
  }

  function tall(button) {
    button.setAttribute("aria-pressed", String(body.classList.toggle("tall")));
    build();
  }

  function build() {
    const box = frame.getBoundingClientRect(), held = view.held;
    core = coreOf(view.circuit, view.k, view.extra);
    const plan = layout(core, box.width || 700, (box.height || 480) - 8);
    // Never larger than life: a small core stands in the middle.
    const wide = Math.max(plan.width, box.width / 1.15), high = Math.max(plan.height, box.height / 1.15);
    const canvas = svg("svg", {
      viewBox: `${((plan.width - wide) / 2).toFixed(1)} ${((plan.height - high) / 2).toFixed(1)} ${wide.toFixed(1)} ${high.toFixed(1)}`,
      role: "group", class: plan.cards ? "cards" : "dots",
      "aria-label": `${data.label}, ${view.circuit.model} model: the ${view.k} nodes with the largest attribution. Arrow keys move, Enter selects.`,
    });
    const layer = svg("g"), under = svg("g"), over = svg("g");
    layer.append(under, over);
    canvas.append(layer);
    bands(plan, under);
    const most = Math.max(...core.links.map((l) => Math.abs(l.attribution ?? 0)), 1e-12);
    links = core.links.map((l) => {
      const about = l.kind === "edge" ? `attribution ${plain(l.attribution)}, weight ${plain(l.weight)} (${l.matrix})` : { stream: "the same channel of the stream", attention: "attention of the same head", hidden: "through nodes that are not shown" }[l.kind];
      const sign = l.kind !== "edge" || l.attribution === null ? "" : l.attribution < 0 ? " minus" : " plus";
      const path = svg("path", { d: curve(l.through), class: `link ${l.kind}${sign}`, "stroke-width": l.kind === "edge" ? (0.9 + 4.1 * Math.sqrt(Math.abs(l.attribution ?? 0) / most)).toFixed(2) : null });
      path.append(svg("title", {}, about));
      return path;
    });
    // The strongest lie on top.
    over.append(...core.links.map((l, i) => [Math.abs(l.attribution ?? 0), links[i]]).sort((a, b) => a[0] - b[0]).map((e) => e[1]));
    const top = Math.max(...core.items.map((t) => Math.abs(t.node?.attribution ?? 0)), 1e-12);
    drawn = core.items.map((t, i) => item(t, i, top, plan.cards));
    over.append(...drawn);
    canvas.addEventListener("click", (event) => { if (!event.target.closest(".node")) release(); });
    canvas.addEventListener("pointerleave", () => { if (view.held === null) light(null); });
    frame.replaceChildren(canvas);
    Object.assign(view, { canvas, zoom: zoomable(canvas, layer) });
    current = 0;
    rove();
    // What was selected stays selected where it is still shown.
    view.held = null;
    const place = held?.node ? core.at.get(held.node.i) : core.items.findIndex((t) => held && t.token === held.token && t.end === held.end);
    if (held && place !== undefined && place >= 0) hold(place);
    else panel.overview(core);
  }

  function bands(plan, under) {
    plan.bands.forEach((band, i) => {
      const end = typeof band.layer === "string", name = end ? (band.layer === "in" ? "prompt" : "answers") : `layer ${band.layer}`;
      if (!end) under.append(svg("rect", { x: 4, y: band.top - 9, width: plan.width - 8, height: band.bottom - band.top + 18, rx: 9, class: "band" }));
      under.append(svg("text", { x: 14, y: (band.top + band.bottom) / 2 + 4, class: "tick" }, name));
    });
  }

  // Attention has corners, MLPs are round, tokens have no border: kinds differ without colour.
  function item(t, i, top, cards) {
    const n = t.node, w = t.width, h = t.height, name = n ? store.name(n.key) : "";
    const about = n ? `${name ? `${name}: ` : ""}${n.long}, attribution ${plain(n.attribution)}${n.protected ? ", protected" : ""}` : `${t.end === "in" ? "token of the prompt" : "answer"} ${t.token}`;
    const look = n ? (n.kind.startsWith("mlp") ? "mlp" : "attn") : "end";
    const group = svg("g", { class: `node ${look}${n?.protected ? " protected" : ""}${view.extra.includes(n?.i) ? " extra" : ""}`, transform: `translate(${t.x.toFixed(1)} ${t.y.toFixed(1)})`, role: "button", tabindex: "-1", "aria-label": about, "aria-pressed": "false" });
    const part = n ? Math.abs(n.attribution ?? 0) / top : 0, sign = (n?.attribution ?? 0) < 0 ? "minus" : "plus";
    const round = look === "mlp" ? h / 2 : look === "end" ? 5 : 3;
    group.append(svg("rect", { x: -w / 2, y: -h / 2, width: w, height: h, rx: round, class: "shape" }));
    if (!n) group.append(svg("text", { y: 4, class: "token-text" }, fit(shownToken(t.token), 20)));
    else if (cards) {
      const tokens = hint(page, n.key), inner = w - 2 * round - 4;
      group.append(
        svg("text", { y: tokens.length ? -4 : 2, class: "node-name" }, fit(name || n.short, 18)),
        svg("text", { y: 8, class: "node-hint" }, tokens.length ? fit(tokens.join(" · "), 17) : ""),
        svg("rect", { x: -inner / 2, y: h / 2 - 5.5, width: (inner * part).toFixed(1), height: 2.6, rx: 1.3, class: `meter ${sign}` }));
    } else {
      group.querySelector(".shape").setAttribute("style", `--a:${Math.sqrt(part).toFixed(2)}`);
      group.querySelector(".shape").classList.add(sign);
      group.append(svg("text", { y: h / 2 + 6, class: "dot-name" }, fit(name || n.short, 14)));
    }
    const groupName = n && store.group(n.key);
    if (groupName) group.append(svg("circle", { cx: w / 2 - 3, cy: -h / 2 + 3, r: cards ? 5 : 3, class: `tag c${1 + (store.groups().indexOf(groupName) % 6)}` }, svg("title", {}, groupName)));
    group.append(svg("title", {}, groupName ? `${about}; group ${groupName}` : about));
    group.addEventListener("pointerenter", (event) => { if (event.pointerType !== "touch" && view.held === null) light(i); });
    group.addEventListener("focus", () => { current = i; rove(); if (view.held === null && group.matches(":focus-visible")) light(i); });
    group.addEventListener("click", () => hold(i));
    group.addEventListener("keydown", (event) => keys(event, i));
    return group;
  }

  function curve(through) {
    const p = (v) => v.toFixed(1), first = through[0], last = through[through.length - 1];
    if (last.y <= first.y + 8) {
      // Side by side: the link goes around below.
      const y0 = first.y + first.height / 2, y1 = last.y + last.height / 2, low = Math.max(y0, y1) + 14;
      return `M${p(first.x)} ${p(y0)}C${p(first.x)} ${p(low)} ${p(last.x)} ${p(low)} ${p(last.x)} ${p(y1)}`;
    }
    let x = first.x, y = first.y + first.height / 2, d = `M${p(x)} ${p(y)}`;
    for (const next of through.slice(1)) {
      const to = next === last ? next.y - next.height / 2 : next.y, m = (y + to) / 2;
      d += `C${p(x)} ${p(m)} ${p(next.x)} ${p(m)} ${p(next.x)} ${p(to)}`;
      [x, y] = [next.x, to];
    }
    return d;
  }

  function rove() {
    drawn.forEach((g, i) => g.setAttribute("tabindex", i === current ? "0" : "-1"));
  }

  // The nearest item in the direction of the arrow; what is straight ahead comes before what is aside.
  function keys(event, i) {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }, here = core.items[i];
    if (event.key === "Enter" || event.key === " ") hold(i);
    else if (event.key === "Escape") release();
    else if (event.key === "+" || event.key === "=") view.zoom.by(1.5, [here.x, here.y]);
    else if (event.key === "-") view.zoom.by(1 / 1.5);
    else if (event.key === "0") view.zoom.reset();
    else if (event.key in ways) {
      const [dx, dy] = ways[event.key];
      let best = null, least = Infinity;
      core.items.forEach((t, j) => {
        const along = (t.x - here.x) * dx + (t.y - here.y) * dy, aside = Math.abs((t.x - here.x) * dy) + Math.abs((t.y - here.y) * dx);
        if (along > 0.5 && along + 3 * aside < least) [best, least] = [j, along + 3 * aside];
      });
      if (best !== null) drawn[best].focus({ preventScroll: true });
    } else return;
    event.preventDefault();
  }

  // One item, what it is joined to, and the links between; null lights everything.
  function light(i) {
    view.canvas.classList.toggle("picked", i !== null);
    const near = new Set([i]);
    core.links.forEach((l, k) => {
      const on = i !== null && (l.from === i || l.to === i);
      links[k].classList.toggle("on", on);
      if (on) near.add(l.from), near.add(l.to);
    });
    drawn.forEach((g, j) => g.classList.toggle("on", near.has(j)));
  }

  // From the list beside the drawing.
  function point(i) {
    if (view.held === null) light(i === null ? null : core.at.get(i));
  }

  function hold(i) {
    view.held = core.items[i];
    light(i);
    drawn.forEach((g, j) => { g.classList.toggle("chosen", i === j); g.setAttribute("aria-pressed", String(i === j)); });
    panel.show(core.items[i]);
  }

  // Args: whether the focus goes back to what was selected.
  function release(back = false) {
    const place = core.items.indexOf(view.held);
    view.held = null;
    panel.overview(core);
    drawn.forEach((g) => { g.classList.remove("chosen"); g.setAttribute("aria-pressed", "false"); });
    light(null);
    if (back && place >= 0) drawn[place].focus({ preventScroll: true });
  }

  // Select a node, which is added to the drawing where the core has no room for it.
  function find(i) {
    if (!core.at.has(i)) {
      view.extra = [...view.extra, i];
      build();
    }
    const place = core.at.get(i);
    hold(place);
    drawn[place].focus({ preventScroll: true });
    if (view.zoom.view.scale > 1) view.zoom.to(core.items[place].x, core.items[place].y, view.zoom.view.scale);
  }

  store.listen(() => { if (frame.isConnected) { const focused = document.activeElement; build(); focused?.focus?.({ preventScroll: true }); } });
  holder.replaceChildren(body);
  change(data.circuits[0].model);
  return { refit: () => { const { scale } = view.zoom.view; if (scale === 1) build(); } };
}

// Text of at most so many characters.
function fit(text, most) {
  const letters = [...text];
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : text;
}

function key(circuit) {
  const entry = (kind, text) => el("li", {}, svg("svg", { width: 26, height: 10, "aria-hidden": "true" }, svg("path", { d: "M1 5H25", class: `link ${kind}`, "stroke-width": kind.startsWith("edge") ? 2.6 : null })), text);
  return el("ul", { class: "legend graph-key" },
    entry("edge plus", "supports the right answer"),
    entry("edge minus", "works against it"),
    entry("stream", "same channel of the stream"),
    entry("hidden", "through nodes not shown"),
    ...(circuit.nodes.some((n) => n.protected) ? [el("li", {}, svg("svg", { width: 26, height: 14, "aria-hidden": "true" }, svg("g", { class: "node attn protected", transform: "translate(13 7)" }, svg("rect", { x: -11, y: -5.5, width: 22, height: 11, rx: 3, class: "shape" }))), "protected")] : []));
}
