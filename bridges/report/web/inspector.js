// The panel beside a circuit: what a node is, what it reads and writes, and text in which it is active.

function inspector(view) {
  const panel = el("aside", { class: "inspector", "aria-label": "Details of the selected node" });

  function show(item) {
    const close = el("button", { type: "button", class: "close", "aria-label": "Close details" }, "×");
    close.addEventListener("click", () => view.release());
    panel.replaceChildren(close, ...(item.node ? node(item.node) : token(item)));
    panel.scrollTop = 0;
  }

  // The nodes that are drawn, the largest attribution first, with what each is most active on.
  function overview(core) {
    const nodes = core.items.filter((t) => t.node).map((t) => t.node), top = Math.max(...nodes.map((n) => Math.abs(n.attribution ?? 0)), 1e-12);
    const effect = view.circuit.recovered?.[view.k - 1] ?? null;
    const rows = nodes.map((n) => {
      const size = Math.abs(n.attribution ?? 0) / top, button = el("button", { type: "button", class: "core-node" });
      const group = view.store.group(n.key);
      button.append(
        el("span", { class: "core-name" }, title(n), group ? el("small", {}, ` ${group}`) : ""),
        signed(n.attribution),
        el("code", {}, hint(view.page, n.key, 3).join(" · ")),
        el("span", { class: `core-size ${(n.attribution ?? 0) < 0 ? "minus" : "plus"}`, style: `--a:${size.toFixed(3)}` }));
      button.addEventListener("click", () => view.find(n.i));
      button.addEventListener("pointerenter", (event) => { if (event.pointerType !== "touch") view.point(n.i); });
      button.addEventListener("pointerleave", () => view.point(null));
      return el("li", {}, button);
    });
    panel.replaceChildren(
      el("h5", {}, `The ${plain(nodes.length)} nodes shown`),
      el("p", { class: "note" }, `Attribution to the logit difference, and tokens each is most active on. Effect recovered by the first ${plain(view.k)}: ${effect === null ? "not measured" : `${Math.round(100 * effect)} %`}.`),
      el("ol", { class: "core-list" }, ...rows));
  }

  function title(node) {
    return view.store.name(node.key) || node.long;
  }

  function link(node, value, about) {
    const button = el("button", { type: "button", class: "follow" }, el("span", {}, title(node)));
    if (value !== undefined) button.append(signed(value));
    if (about) button.setAttribute("title", about);
    button.addEventListener("click", () => view.find(node.i));
    return el("li", {}, button);
  }

  function end(text, value, about) {
    return el("li", { title: about }, el("div", { class: "follow" }, el("code", {}, shownToken(text)), signed(value)));
  }

  function list(heading, entries, most = 8) {
    if (!entries.length) return "";
    const shown = el("ul", { class: "links" }, ...entries.slice(0, most)), box = el("div", {}, el("h6", {}, `${heading} (${entries.length})`), shown);
    if (entries.length > most) {
      const more = el("button", { type: "button", class: "more-links" }, `${entries.length - most} more`);
      more.addEventListener("click", () => { shown.append(...entries.slice(most)); more.remove(); });
      box.append(more);
    }
    return box;
  }

  function node(n) {
    const circuit = view.circuit, { nodes } = circuit;
    const facts = [
      ["Attribution", n.attribution === null ? "not measured" : signed(n.attribution), "First-order fall of the mean logit difference when this node alone is ablated"],
      ["Exact effect", n.effect === null ? "not measured" : signed(n.effect), "The same, measured by ablating it"],
      ["Rank", `${n.i + 1} of ${plain(nodes.length + circuit.left.nodes)}`],
      ["Mean in text", plain(n.mean), "What replaces it where it is ablated"],
      ["Protected", n.protected ? "yes: an adversary needs it kept" : "no", "Whether adversarial pruning added it"],
      ...(n.head === null ? [] : [["Head", n.head]]),
      ["Node", el("code", {}, n.key)],
    ];
    const about = (e) => `${e.matrix || ""} weight ${plain(e.weight)}`.trim();
    const into = circuit.edges.filter((e) => e.b === n.i), outof = circuit.edges.filter((e) => e.a === n.i);
    const free = (side, other, kind) => circuit.free.filter((e) => e[side] === n.i && e.kind === kind).map((e) => link(nodes[e[other]]));
    return [
      el("h5", {}, title(n)),
      naming(n),
      el("dl", {}, ...facts.map(([term, value, about]) => el("div", { title: about }, el("dt", {}, term), el("dd", {}, value)))),
      examples(view.page, n.key),
      list("Writes to the answers", writesStream(n) ? circuit.writes.filter((e) => e.channel === n.channel).map((e) => end(e.token, e.attribution, about(e))) : []),
      list("Reads", into.map((e) => link(nodes[e.a], e.attribution, about(e)))),
      list("Writes", outof.map((e) => link(nodes[e.b], e.attribution, about(e)))),
      list("Reads of the prompt’s tokens", readsStream(n) ? circuit.reads.filter((e) => e.channel === n.channel).map((e) => end(e.token, e.attribution, about(e))) : []),
      list("Same channel of the stream, written by", free("b", "a", "stream"), 5),
      list("Same channel of the stream, read by", free("a", "b", "stream"), 5),
      list("Attends for", free("a", "b", "attention"), 5),
      list("Attention decided by", free("b", "a", "attention"), 5),
    ];
  }

  // What is typed is kept when the field is left; the drawing follows.
  function naming(n) {
    const groups = `groups-${view.id}`;
    const field = (label, value, attributes, put) => {
      const input = el("input", { type: "text", value, maxlength: 60, autocomplete: "off", ...attributes });
      input.addEventListener("change", () => put(input.value));
      return el("label", {}, el("span", {}, label), input);
    };
    return el("div", { class: "naming" },
      field("Name", view.store.name(n.key), { placeholder: "what does it do?" }, (name) => view.store.set(n.key, { name })),
      field("Group", view.store.group(n.key), { placeholder: "none", list: groups }, (group) => view.store.set(n.key, { group })),
      el("datalist", { id: groups }, ...view.store.groups().map((g) => el("option", { value: g }))));
  }

  function token(item) {
    const side = item.end === "in" ? view.circuit.reads : view.circuit.writes, fits = item.end === "in" ? readsStream : writesStream;
    const joined = side.filter((e) => e.token === item.token).flatMap((e) => view.circuit.nodes.filter((n) => n.channel === e.channel && fits(n)).map((n) => link(n, e.attribution, `weight ${plain(e.weight)}`)));
    return [
      el("h5", {}, item.end === "in" ? "Token of the prompt " : "Answer ", el("code", {}, shownToken(item.token))),
      el("p", { class: "note" }, item.end === "in" ? "Its embedding writes these channels of the stream; each number is the attribution of that weight." : "Its logit is read from these channels of the stream; each number is the attribution of that weight."),
      list(item.end === "in" ? "Read by" : "Written by", joined, 16),
    ];
  }

  return { panel, show, overview };
}

function signed(value) {
  if (value === null || value === undefined) return el("b", {}, "–");
  return el("b", { class: value < 0 ? "minus" : "plus" }, `${value < 0 ? "" : "+"}${plain(Number(value.toPrecision(2)), 4)}`);
}

// How strongly a token is shaded: letters as the page holds them, -1 to 1.
function shade(letter) {
  const code = letter.charCodeAt(0);
  return letter === "Z" ? 0 : code >= 97 ? (code - 96) / 25 : (code - 90) / 25;
}

// Text in which a node is most active: above zero solid, below zero hatched, the strongest token framed.
function examples(page, key) {
  const places = page.places[key];
  if (!places) return "";
  const box = el("div", {}, el("h6", {}, "Most active on"));
  for (const [value, marked, number, shades] of places) {
    const code = el("code", { class: "snippet" });
    page.windows[number].forEach((text, i) => {
      const strength = shade(shades[i]), sign = Math.abs(strength) < 0.02 ? "" : strength < 0 ? " below" : " above";
      code.append(el(i === marked ? "mark" : "span", { class: `token${sign}`, style: `--a:${Math.abs(strength).toFixed(2)}` }, i ? page.texts[text] : page.texts[text].trimStart()));
    });
    box.append(el("p", { class: "example" }, el("span", { class: "value" }, plain(value)), code));
  }
  return box;
}

// What a node is most active on in a few tokens: the tokens that its examples mark.
function hint(page, key, most = 2) {
  const marked = (page.places[key] || []).map(([, at, number]) => page.texts[page.windows[number][at]].trim()).filter(Boolean);
  return [...new Set(marked)].slice(0, most);
}
