"use strict";
(() => {
  const views = [];

  // What hovering or a tap tells stands in one box, as text.
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;
  document.body.append(tip);
  function tell(_, event, item, words) {
    tip.hidden = !words;
    if (!words) return;
    tip.textContent = words;
    const right = window.scrollX + document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = Math.max(8, Math.min(event.pageX + 12, right)) + "px";
    tip.style.top = event.pageY + 16 + "px";
  }

  // Charts.
  const options = { mode: "vega-lite", renderer: "svg", actions: false, tooltip: tell };
  async function draw() {
    for (const place of document.querySelectorAll(".chart")) {
      const spec = JSON.parse(document.getElementById(place.dataset.spec).textContent);
      const { view } = await vegaEmbed(place, spec, options);
      views.push({ view, section: place.closest("section"), off: 0 });
    }
    // A browser may have kept what was switched off before.
    document.querySelectorAll("section").forEach(show);
    document.documentElement.dataset.drawn = views.length;
  }

  // Targets are switched off in the tables, maps and charts of their section.
  function show(section) {
    const boxes = [...section.querySelectorAll("input[data-switch]")];
    const off = boxes.filter((box) => !box.checked).map((box) => box.dataset.switch);
    for (const part of section.querySelectorAll("[data-target]")) {
      part.hidden = off.includes(part.dataset.target);
    }
    for (const each of views) {
      if (each.section !== section || off.length + each.off === 0) continue;
      each.off = off.length;
      each.view.signal("off", off).runAsync();
    }
  }
  for (const box of document.querySelectorAll("input[data-switch]")) {
    box.addEventListener("change", () => show(box.closest("section")));
  }
  for (const box of document.querySelectorAll("input[data-paper]")) {
    box.addEventListener("change", () => box.closest("section").classList.toggle("with-paper", box.checked));
  }

  // Tables are sorted by a column: up, then down; lines that are equal keep their order.
  const order = new Intl.Collator(undefined, { numeric: true });
  function compare(a, b) {
    const [x, y] = [a, b].map((cell) => cell.dataset.key);
    if (x !== undefined && y !== undefined) return Number(x) - Number(y);
    return order.compare(a.textContent.trim(), b.textContent.trim());
  }
  for (const button of document.querySelectorAll("thead button")) {
    button.addEventListener("click", () => {
      const head = button.parentElement, table = head.closest("table"), body = table.tBodies[0];
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const lines = [...body.rows];
      const sorted = lines.sort((a, b) => {
        const found = compare(a.cells[head.cellIndex], b.cells[head.cellIndex]);
        return up ? found : -found;
      });
      body.append(...sorted);
    });
  }

  // The index: results of a model, a data set, a defence.
  const filters = [...document.querySelectorAll("select[data-filter]")];
  function choose() {
    let count = 0;
    for (const result of document.querySelectorAll(".results > li")) {
      const fits = filters.every((filter) => {
        const values = JSON.parse(result.dataset[filter.dataset.filter]);
        return !filter.value || values.includes(filter.value);
      });
      result.hidden = !fits;
      count += fits;
    }
    document.getElementById("count").textContent = count;
  }
  for (const filter of filters) filter.addEventListener("change", choose);
  if (filters.length) choose();

  draw();

  // Where there is room the contents are open. On paper so is what the figures say of themselves.
  if (matchMedia("(min-width: 40rem)").matches) {
    for (const list of document.querySelectorAll(".contents")) list.open = true;
  }
  let closed = [];
  window.addEventListener("beforeprint", () => {
    tip.hidden = true;
    closed = [...document.querySelectorAll("details.fold:not([open])")];
    for (const part of closed) part.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const part of closed) part.open = false;
  });
})();
