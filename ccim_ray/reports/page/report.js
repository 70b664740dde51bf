"use strict";
(() => {
  const root = document.documentElement;
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const narrow = () => window.innerWidth < 620;

  // A string such as "--accent" stands for the page's colour of that name, which differs between light and dark.
  const coloured = (value, style) => {
    if (typeof value === "string") return value.startsWith("--") ? style.getPropertyValue(value).trim() : value;
    if (Array.isArray(value)) return value.map((item) => coloured(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, style)]));
  };

  const axis = (given, style, automargin) => ({
    gridcolor: style.getPropertyValue("--line").trim(),
    linecolor: style.getPropertyValue("--line").trim(),
    zeroline: false,
    fixedrange: narrow(),
    ...given,
    automargin,
    title: given.title ? { ...given.title, standoff: 8, font: { size: 12 } } : undefined,
  });

  const draw = (box) => {
    const plot = plots[box.dataset.plot];
    const view = plot.views[Number(box.dataset.view || 0)];
    const style = getComputedStyle(root);
    const ink = style.getPropertyValue("--ink").trim();
    const surface = style.getPropertyValue("--surface").trim();
    const given = coloured(view.layout, style);
    const layout = {
      ...given,
      height: plot.height,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
      margin: { l: 10, r: 16, t: 12, b: given.legend ? 84 : given.xaxis.side === "top" ? 8 : 44 },
      hoverlabel: { bgcolor: surface, bordercolor: style.getPropertyValue("--line").trim(), font: { color: ink }, align: "left" },
      dragmode: narrow() ? false : "zoom",
      xaxis: axis(given.xaxis, style, given.xaxis.side === "top"),
      yaxis: axis(given.yaxis, style, true),
    };
    Plotly.react(box, coloured(view.data, style), layout, { displayModeBar: false, responsive: true });
    box.dataset.drawn = "true";
  };

  const drawVisible = () => {
    for (const box of document.querySelectorAll(".plot")) {
      if (!box.closest("details:not([open])")) draw(box);
    }
  };

  for (const box of document.querySelectorAll(".plot")) {
    const { views } = plots[box.dataset.plot];
    if (views.length < 2) continue;
    const chooser = document.createElement("div");
    chooser.className = "views";
    views.forEach((view, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "view";
      button.textContent = view.name;
      button.setAttribute("aria-pressed", String(place === 0));
      button.addEventListener("click", () => {
        box.dataset.view = place;
        for (const other of chooser.children) other.setAttribute("aria-pressed", String(other === button));
        draw(box);
      });
      chooser.append(button);
    });
    (box.closest(".scroller") || box).before(chooser);
  }

  for (const fold of document.querySelectorAll("details")) {
    fold.addEventListener("toggle", () => {
      if (fold.open) fold.querySelectorAll(".plot").forEach(draw);
    });
  }

  // Sorting moves whole bodies, so that the seeds stay with their setting. A third click brings back the first order.
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
  };
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const headers = [...table.tHead.rows[0].cells];
    const original = [...table.tBodies];
    headers.forEach((header, column) => {
      header.firstElementChild.addEventListener("click", () => {
        const next = { none: column ? "descending" : "ascending", ascending: column ? "none" : "descending", descending: column ? "ascending" : "none" };
        const order = next[header.getAttribute("aria-sort")];
        headers.forEach((other) => other.setAttribute("aria-sort", other === header ? order : "none"));
        const value = (body) => body.rows[0].cells[column].dataset.value;
        const sorted = order === "none" ? original : [...original].sort((a, b) => {
          const empty = (value(a) === "") - (value(b) === "");
          return empty || (order === "ascending" ? 1 : -1) * compare(value(a), value(b));
        });
        table.append(...sorted);
      });
    });
  }

  const showSeeds = (button, open) => {
    button.setAttribute("aria-expanded", String(open));
    button.textContent = open ? "▾" : "▸";
    for (const row of button.closest("tbody").querySelectorAll(".seed")) row.hidden = !open;
  };
  for (const button of document.querySelectorAll(".expand")) {
    button.addEventListener("click", () => showSeeds(button, button.getAttribute("aria-expanded") !== "true"));
  }
  for (const all of document.querySelectorAll("[data-seeds]")) {
    all.addEventListener("click", () => {
      const open = all.getAttribute("aria-pressed") !== "true";
      all.setAttribute("aria-pressed", String(open));
      all.textContent = open ? "Hide seeds" : "Show seeds";
      for (const button of all.closest(".metric-table").querySelectorAll(".expand")) showSeeds(button, open);
    });
  }

  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const toggle = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const themed = () => {
    toggle.textContent = isDark() ? "Light" : "Dark";
    drawVisible();
  };
  // A page opened from a file may not be allowed to remember anything.
  const remembered = (choice) => {
    try {
      if (choice) localStorage.setItem("ccim_ray.theme", choice);
      return localStorage.getItem("ccim_ray.theme");
    } catch {
      return null;
    }
  };
  if (["light", "dark"].includes(remembered())) root.dataset.theme = remembered();
  toggle.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remembered(root.dataset.theme);
    themed();
  });
  dark.addEventListener("change", themed);
  themed();
})();
