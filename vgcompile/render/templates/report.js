"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Pictures: pan by dragging, zoom by buttons, keys, and the wheel with Ctrl.
  function live(picture) {
    const paper = picture.querySelector(".pannable");
    const drawing = paper.querySelector(".drawing");
    paper.classList.add("live");
    const panzoom = Panzoom(drawing, { maxScale: 12, minScale: 0.05, step: 0.4, cursor: "grab" });
    const whole = () => {
      const scale = Math.min(1, (paper.clientHeight - 14) / drawing.offsetHeight);
      panzoom.zoom(scale, { animate: false });
      requestAnimationFrame(() => panzoom.pan(0, (drawing.offsetHeight * (scale - 1)) / 2 / scale, { animate: false }));
    };
    const act = {
      in: () => panzoom.zoomIn(),
      out: () => panzoom.zoomOut(),
      width: () => panzoom.reset({ animate: false }),
      whole,
    };
    all("[data-zoom]", picture).forEach((button) => button.addEventListener("click", act[button.dataset.zoom]));
    paper.addEventListener("wheel", (event) => {
      if (event.ctrlKey || event.metaKey) panzoom.zoomWithWheel(event);
    }, { passive: false });
    paper.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [0, 60], ArrowDown: [0, -60], ArrowLeft: [60, 0], ArrowRight: [-60, 0] }[event.key];
      if (step) panzoom.pan(step[0], step[1], { relative: true });
      else if (event.key === "+") act.in();
      else if (event.key === "-") act.out();
      else if (event.key === "0") act.width();
      else return;
      event.preventDefault();
    });
  }
  all(".picture").forEach(live);

  // Folded or unfolded.
  all("[data-show]").forEach((button) => button.addEventListener("click", () => {
    all("[data-picture]").forEach((picture) => { picture.hidden = picture.dataset.picture !== button.dataset.show; });
  }));

  // A layer in the table and in the pictures.
  function choose(order) {
    all(".found").forEach((element) => element.classList.remove("found"));
    all("tr.chosen").forEach((row) => row.classList.remove("chosen"));
    if (order === "") return;
    all(`.drawing .layer-${order}`).forEach((element) => element.classList.add("found"));
    all(`tr[data-layer="${order}"]`).forEach((row) => row.classList.add("chosen"));
  }
  all("tr[data-layer] .find").forEach((button) => button.addEventListener("click", () => {
    choose(button.closest("tr").dataset.layer);
    document.getElementById("butterfly").scrollIntoView({ behavior: "smooth" });
  }));
  all(".drawing .node").forEach((node) => node.addEventListener("click", () => {
    const name = [...node.classList].find((name) => /^layer-\d+$/.test(name));
    if (name) choose(name.slice("layer-".length));
  }));

  // Sorting: numbers as numbers, what is missing last.
  all("table.sortable").forEach((table) => all("th", table).forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      all("th", table).forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.sort;
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return up ? order : -order;
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort(compare));
    });
  }));

  // What the page carries, to take away.
  all(".take-svg").forEach((link) => {
    const svg = link.closest(".picture").querySelector(".drawing svg");
    link.href = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(new XMLSerializer().serializeToString(svg));
    link.hidden = false;
  });
  const take = document.getElementById("take-json");
  take.href = "data:application/json;charset=utf-8," + encodeURIComponent(document.getElementById("analysis").textContent);
  take.hidden = false;
})();
