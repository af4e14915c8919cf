// The panel beside a circuit: what a node is, what it reads and writes, and text in which it is active.

function inspector(view) {
  const panel = el("aside", { class: "inspector", "aria-label": "Details of the selected node" });

  function show(item) {
    const close = el("button", { type: "button", class: "close", "aria-label": "Close details" }, "×");
    close.addEventListener("click", () => view.release(true));
    panel.replaceChildren(close, ...(item.node ? node(item.node) : token(item)));
    panel.scrollTop = 0;
  }

  panel.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || view.held === null) return;
    event.preventDefault();
    view.release(true);
  });

  // The nodes that are drawn, the largest attribution first, with what each is most active on.
  function overview(core) {
    const nodes = core.items.filter((t) => t.node).map((t) => t.node), top = Math.max(...nodes.map((n) => Math.abs(n.attribution ?? 0)), 1e-12);
    const effect = new Map(view.circuit.recovered).get(view.k);
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
      el("p", { class: "note" }, `Attribution to the logit difference, and tokens each is most active on.${effect === undefined ? "" : ` By themselves they ${recoveredText(effect)}.`}`),
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
      pairOf(n),
      answers(n),
      examples(view.page, n.key),
      list("Writes to the behaviour’s answers", writesStream(n) ? circuit.writes.filter((e) => e.channel === n.channel).map((e) => end(e.token, e.attribution, about(e))) : []),
      list("Reads", into.map((e) => link(nodes[e.a], e.attribution, about(e)))),
      list("Writes", outof.map((e) => link(nodes[e.b], e.attribution, about(e)))),
      list("Reads of the prompt’s tokens", readsStream(n) ? circuit.reads.filter((e) => e.channel === n.channel).map((e) => end(e.token, e.attribution, about(e))) : []),
      list("Same channel of the stream, written by", free("b", "a", "stream"), 5),
      list("Same channel of the stream, read by", free("a", "b", "stream"), 5),
      list("Attends for", free("a", "b", "attention"), 5),
      list("Attention decided by", free("b", "a", "attention"), 5),
    ];
  }

  // The behaviour's example pair, each token shaded by this node's activation.
  function pairOf(n) {
    const { circuit, page } = view, seen = circuit.shades[n.i];
    if (!seen) return "";
    const [most, ...sides] = seen, box = el("div", { class: "pair-shades" }, el("h6", {}, "On this pair’s two prompts"));
    const words = circuit.prompts.map((number) => page.windows[number]);
    sides.forEach((shades, side) => {
      const other = words[1 - side], differs = (i) => words[0].length === words[1].length && words[side][i] !== other[i];
      const code = shaded(page, circuit.prompts[side], shades, -1, differs);
      const answer = circuit.answers[side] === undefined ? "" : el("span", { class: "answer", title: "the token that is right here" }, circuit.answers[side]);
      box.append(el("p", { class: "example" }, el("span", { class: "value" }, side ? "other" : "clean"), el("span", {}, code, answer)));
    });
    box.append(el("p", { class: "note" }, most ? `The darkest shade is ${plain(most)}; tokens that differ are underlined.` : "It is zero on all tokens of both."));
    return box;
  }

  // What one unit of this node adds to the logits of the pair's two answers through its kept weights, before the norm.
  function answers(n) {
    const { circuit } = view, [right, other] = circuit.answers;
    if (right === undefined || other === undefined) return "";
    const outs = writesStream(n) ? [[n, 1]] : circuit.edges.filter((e) => e.a === n.i && writesStream(circuit.nodes[e.b])).map((e) => [circuit.nodes[e.b], e.weight]);
    const weight = (token) => outs.reduce((sum, [out, w]) => sum + circuit.writes.reduce((s, e) => s + (e.channel === out.channel && e.token === token ? w * e.weight : 0), 0), 0);
    if (!outs.length) return "";
    const [a, b] = [weight(right), weight(other)], about = "Weight into the answer’s logit, per unit of this node, through channels of the stream alone";
    if (!a && !b) return el("div", {}, el("h6", {}, "Writes to the two answers"), el("p", { class: "note" }, "Nothing directly: later nodes read it."));
    return el("div", {}, el("h6", {}, "Writes to the two answers, per unit"), el("ul", { class: "links" }, end(right, a, about), end(other, b, about), el("li", {}, el("div", { class: "follow" }, el("span", {}, "first minus second"), signed(a - b)))));
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

// A stretch of text, each token shaded; one is marked, and those that differ are underlined.
function shaded(page, number, shades, marked, differs = () => false) {
  const code = el("code", { class: "snippet" });
  page.windows[number].forEach((text, i) => {
    const strength = shade(shades[i]), sign = Math.abs(strength) < 0.02 ? "" : strength < 0 ? " below" : " above";
    code.append(el(i === marked ? "mark" : "span", { class: `token${sign}${differs(i) ? " differs" : ""}`, style: `--a:${Math.abs(strength).toFixed(2)}` }, i ? page.texts[text] : page.texts[text].trimStart()));
  });
  return code;
}

// Text in which a node is most active: above zero solid, below zero hatched, the strongest token framed.
function examples(page, key) {
  const places = page.places[key];
  if (!places) return "";
  const box = el("div", {}, el("h6", {}, "Most active on"));
  for (const [value, marked, number, shades] of places) {
    box.append(el("p", { class: "example" }, el("span", { class: "value" }, plain(value)), shaded(page, number, shades, marked)));
  }
  return box;
}

// What a node is most active on in a few tokens: the tokens that its examples mark.
function hint(page, key, most = 2) {
  const marked = (page.places[key] || []).map(([, at, number]) => page.texts[page.windows[number][at]].trim()).filter(Boolean);
  return [...new Set(marked)].slice(0, most);
}
