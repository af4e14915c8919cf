// Names and groups that a reader gives to nodes: kept by the browser, written to names.json, read back from it.

// Circuits and reports keep them as {"names": {node: name}, "groups": {group: [nodes]}}; here each node has one group.
function nameStore(run, given) {
  const slot = `bridges.names.${run}`, listeners = new Set();
  let names = {}, groups = {};

  function take(state, only) {
    for (const [node, name] of Object.entries(state.names || {})) if (typeof name === "string") names[node] = name;
    for (const [group, nodes] of Object.entries(state.groups || {}))
      if (Array.isArray(nodes)) for (const node of nodes) groups[node] = group;
    for (const node of only || []) delete groups[node];
  }

  // A page that is opened from a file may not be allowed to keep anything.
  function kept() {
    try { return JSON.parse(localStorage.getItem(slot)) || {}; } catch { return {}; }
  }

  function keep() {
    const ungrouped = Object.keys(start.groups).filter((node) => !groups[node]);
    try { localStorage.setItem(slot, JSON.stringify({ ...state(true), ungrouped })); } catch { /* kept by this page only */ }
    listeners.forEach((tell) => tell());
  }

  // What was named in the file and is not any more has an empty name until it is forgotten.
  function state(withEmpty) {
    const lists = {};
    for (const [node, group] of Object.entries(groups)) if (group) (lists[group] ||= []).push(node);
    return { names: Object.fromEntries(Object.entries(names).filter((e) => withEmpty || e[1]).sort()), groups: lists };
  }

  take(given);
  const start = { names: { ...names }, groups: { ...groups } };
  const earlier = kept();
  take(earlier, earlier.ungrouped);

  return {
    name: (node) => names[node] || "",
    group: (node) => groups[node] || "",
    groups: () => [...new Set(Object.values(groups).filter(Boolean))].sort(),
    count: () => Object.values(names).filter(Boolean).length,
    set(node, { name, group }) {
      if (name !== undefined) {
        if (name.trim() || start.names[node]) names[node] = name.trim();
        else delete names[node];
      }
      if (group !== undefined) {
        if (group.trim()) groups[node] = group.trim();
        else delete groups[node];
      }
      keep();
    },
    json: () => `${JSON.stringify(state(false), null, 2)}\n`,
    state: () => state(false),
    // Names of a file go over those of the page; the number of names read.
    read(text) {
      let found;
      try { found = JSON.parse(text); } catch { throw new Error("This file holds no JSON."); }
      if (!found || typeof found.names !== "object") throw new Error('This file holds no {"names": {…}, "groups": {…}}.');
      take(found);
      keep();
      return Object.keys(found.names).length;
    },
    forget() {
      names = { ...start.names };
      groups = { ...start.groups };
      try { localStorage.removeItem(slot); } catch { /* nothing was kept */ }
      listeners.forEach((tell) => tell());
    },
    listen: (tell) => listeners.add(tell),
  };
}
