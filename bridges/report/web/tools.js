// What stands above a circuit: how much of it is shown, finding a node, zoom, names and files.

// Sizes of the core that the slider stops at: those at which was measured what they recover, or else round ones.
function stops(total, measured) {
  const least = Math.min(10, total), known = measured.map((e) => e[0]).filter((k) => k >= least && k < total), out = [];
  if (known.length) return [...known, total];
  for (let k = least; k < total; k += k < 20 ? 1 : k < 60 ? 5 : k < 120 ? 10 : 25) out.push(k);
  return [...out, total];
}

// Share of the summed |attribution| in the first 1, 2, … nodes.
function shares(circuit) {
  let sum = 0;
  return circuit.nodes.map((n) => (sum += Math.abs(n.attribution ?? 0)) / (circuit.total || 1));
}

// {k: [share of the effect that the first k nodes recover alone, share lost without them]}
function effectsOf(circuit) {
  return new Map(circuit.core.map(([k, recovered, lost]) => [k, [recovered, lost]]));
}

function effectText(shares) {
  if (!shares) return "effect not measured";
  const [recovered, lost] = shares.map((share) => `${Math.round(100 * share)} %`.replace("-", "−"));
  return `alone recover ${recovered} of the effect; without them ${lost} is lost`;
}

function graphTools(view, data) {
  const box = el("div", { class: "graph-tools", role: "toolbar", "aria-label": "Tools of the drawing" });
  const circuit = view.circuit, sizes = stops(circuit.nodes.length, circuit.core), parts = shares(circuit), effects = effectsOf(circuit);
  const whole = circuit.nodes.length + circuit.left.nodes;

  function slider() {
    const start = Math.max(0, sizes.findIndex((k) => k >= Math.min(view.k, circuit.nodes.length)));
    const range = el("input", { type: "range", min: 0, max: sizes.length - 1, value: start, "aria-label": "Nodes shown, by attribution" });
    const shown = el("output", {}), share = el("span", { class: "share" });
    // Drawn over the slider: the shares recovered and lost, or where they were not measured that of all attribution.
    const share01 = (k, which) => Math.min(1, Math.max(0, effects.size ? (effects.get(k) ?? effects.get(sizes[sizes.indexOf(k) - 1]))?.[which] ?? 0 : parts[k - 1]));
    const drawn = (k) => share01(k, 0);
    const W = 150, H = 22, curve = svg("svg", { class: "cumulative", width: W, height: H, viewBox: `0 0 ${W} ${H}`, "aria-hidden": "true" });
    const X = (step) => 8 + ((W - 16) * step) / Math.max(1, sizes.length - 1), Y = (v) => H - 2 - (H - 5) * v;
    const through = (which) => sizes.map((k, step) => `${X(step).toFixed(1)} ${Y(share01(k, which)).toFixed(1)}`).join("L"), line = through(0);
    const dot = svg("circle", { r: 3.2 });
    curve.append(svg("path", { class: "under", d: `M${X(0)} ${H}L${line}V${H}Z` }), svg("path", { class: "over", d: `M${line}` }), effects.size ? svg("path", { class: "over lost", d: `M${through(1)}` }) : "", dot);
    const say = () => {
      const k = sizes[range.value];
      dot.setAttribute("cx", X(Number(range.value))), dot.setAttribute("cy", Y(drawn(k)));
      shown.replaceChildren(el("b", {}, plain(k)), ` of ${plain(whole)} nodes`);
      share.textContent = effects.size ? effectText(effects.get(k)) : `${Math.round(100 * parts[k - 1])} % of all |attribution|`;
      share.title = effects.size
        ? "Of the mean logit difference between no node (0 %) and the whole circuit (100 %): recovered where only these nodes are kept (solid), lost where only these are ablated (dashed)"
        : "Share of the sum over the circuit’s nodes, which are ranked by |attribution|: the first-order fall of the mean logit difference when a node alone is ablated";
      range.setAttribute("aria-valuetext", `${k} nodes, ${share.textContent}`);
    };
    range.addEventListener("input", () => { say(); view.resize(sizes[range.value]); });
    say();
    return el("div", { class: "core" }, sizes.length > 1 ? el("div", { class: "slide" }, curve, range) : "", el("p", {}, shown, share));
  }

  function finder() {
    const input = el("input", { type: "search", placeholder: "Find node", "aria-label": "Find a node by kind, number, name or token", autocomplete: "off" });
    const hits = el("ul", { class: "hits", hidden: "" });
    const close = () => { hits.hidden = true; };
    const go = (n) => { close(); input.value = ""; view.find(n.i); };
    input.addEventListener("input", () => {
      const asked = input.value.trim().toLowerCase();
      const found = asked ? circuit.nodes.filter((n) => text(n).includes(asked)).slice(0, 8) : [];
      hits.replaceChildren(...found.map((n) => {
        const name = view.store.name(n.key), button = el("button", { type: "button" }, el("span", {}, name || n.long), el("small", {}, name ? n.long : hint(view.page, n.key).join(" · ")));
        button.addEventListener("click", () => go(n));
        return el("li", {}, button);
      }));
      if (asked && !found.length) hits.append(el("li", { class: "note" }, "No node of this circuit fits."));
      hits.hidden = !asked;
      input.onkeydown = (event) => {
        if (event.key === "Enter" && found.length) go(found[0]);
        else if (event.key === "ArrowDown" && found.length) hits.querySelector("button").focus();
        else if (event.key === "Escape") close();
        else return;
        event.preventDefault();
      };
    });
    hits.addEventListener("keydown", (event) => {
      const buttons = [...hits.querySelectorAll("button")], at = buttons.indexOf(document.activeElement);
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") close(), input.focus();
      else if (step) (buttons[at + step] || input).focus();
      else return;
      event.preventDefault();
    });
    const holder = el("div", { class: "finder" }, input, hits);
    holder.addEventListener("focusout", (event) => { if (!holder.contains(event.relatedTarget)) close(); });
    return holder;
  }

  function text(n) {
    return [n.key, n.long, view.store.name(n.key), view.store.group(n.key), ...hint(view.page, n.key)].join(" ").toLowerCase();
  }

  function button(label, title, act) {
    const made = el("button", { type: "button", title, "aria-label": title }, label);
    made.addEventListener("click", act);
    return made;
  }

  function menu(label, ...entries) {
    const fold = el("details", { class: "menu" }, el("summary", {}, label), el("div", {}, ...entries));
    fold.addEventListener("focusout", (event) => { if (!fold.contains(event.relatedTarget)) setTimeout(() => { if (!fold.contains(document.activeElement)) fold.open = false; }, 150); });
    fold.addEventListener("keydown", (event) => { if (event.key === "Escape") (fold.open = false), fold.querySelector("summary").focus(); });
    return fold;
  }

  function names() {
    const label = el("span", {}), say = () => { label.textContent = view.store.count() ? `Names (${view.store.count()})` : "Names"; };
    const told = el("p", { class: "note", role: "status" }, "Select a node to name it. Names stay in this browser; as names.json in the run’s folder they are part of every later report.");
    const file = el("input", { type: "file", accept: ".json,application/json", hidden: "" });
    file.addEventListener("change", async () => {
      if (!file.files[0]) return;
      try { told.textContent = `${view.store.read(await file.files[0].text())} names read.`; } catch (error) { told.textContent = error.message; }
      file.value = "";
    });
    view.store.listen(say);
    say();
    return menu(label, told,
      button("Save names.json", "Save the names and groups as names.json", () => download("names.json", view.store.json(), "application/json")),
      button("Save this page with them", "Save this page with the names inside", () => savePage(view.page.asRead, view.store.state())),
      button("Read a names.json", "Read names and groups from a file", () => file.click()),
      button("Forget what was given here", "Forget the names given in this browser", () => view.store.forget()), file);
  }

  const name = () => `${data.label.replace(/[^\w-]+/g, "_")}-${circuit.model}`;
  const caption = () => `${data.label}, ${circuit.model} model: ${Math.min(view.k, circuit.nodes.length)} of ${whole} nodes`;
  const kinds = data.circuits.length > 1 ? el("select", { "aria-label": "Whose circuit" }, ...data.circuits.map((c) => el("option", { value: c.model }, `${c.model} model`))) : "";
  if (kinds) {
    kinds.value = circuit.model;
    kinds.addEventListener("change", () => view.change(kinds.value));
  }
  box.append(
    slider(),
    kinds,
    finder(),
    el("div", { class: "buttons" }, button("−", "Zoom out", () => view.zoom.by(1 / 1.5)), button("+", "Zoom in", () => view.zoom.by(1.5)), button("Fit", "Fit the drawing to its box", () => view.zoom.reset()), button("↕", "Make the box taller or as it was", (e) => view.tall(e.currentTarget))),
    names(),
    menu("Save", button("SVG", "Save the drawing as SVG", () => saveSvg(view.canvas, name(), caption())), button("PNG", "Save the drawing as PNG", () => savePng(view.canvas, name(), caption())))
  );
  return box;
}
