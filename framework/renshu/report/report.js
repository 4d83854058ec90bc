"use strict";
// Draws the charts in the page's colours and makes tables sortable. Everything it shows stands in
// the page already; without it the page still holds every number.
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const charts = [...document.querySelectorAll(".chart")];

  const variable = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // "var(--name)" as the value of a colour becomes the colour that the scheme gives it.
  function coloured(value, key = "") {
    if (typeof value === "string") {
      const match = /color/.test(key) && /^var\((--[a-z0-9-]+)\)$/.exec(value);
      return match ? variable(match[1]) : value;
    }
    if (Array.isArray(value)) return value.map((item) => coloured(item, key));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v, k)]));
  }

  // How each kind of trace looks, unless it says more itself.
  const looks = () => ({
    scatter: { line: { width: 2 }, marker: { size: 5 } },
    bar: {},
    heatmap: {
      zmin: 0,
      zmax: 1,
      xgap: 1,
      ygap: 1,
      hovertemplate: "%{customdata} (%{z:.1%})<extra></extra>",
      colorscale: [[0, variable("--heat-low")], [1, variable("--heat-high")]],
      colorbar: { tickformat: ".0%", thickness: 10, outlinewidth: 0 },
    },
  });

  function traces(own) {
    const look = looks();
    return coloured(own).map((trace) => {
      const style = look[trace.type] || {};
      return { ...style, ...trace, line: { ...style.line, ...trace.line } };
    });
  }

  function layout(own) {
    const axis = {
      gridcolor: variable("--line"),
      linecolor: variable("--line-strong"),
      zerolinecolor: variable("--line"),
      tickfont: { color: variable("--muted") },
      automargin: true,
    };
    const result = {
      font: { family: variable("--font"), size: 12, color: variable("--text") },
      colorway: [1, 2, 3, 4, 5, 6].map((i) => variable(`--series-${i}`)),
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 48, r: 12, t: 12, b: 40 },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      hoverlabel: { font: { family: variable("--font") }, align: "left", namelength: 24 },
      hovermode: "closest",
      bargap: 0.2,
      modebar: { bgcolor: "rgba(0,0,0,0)", color: variable("--muted"), activecolor: variable("--accent") },
      ...coloured(own),
    };
    for (const name of Object.keys(own).concat(["xaxis", "yaxis"])) {
      if (/^[xy]axis\d*$/.test(name)) result[name] = { ...axis, ...coloured(own[name] || {}) };
    }
    return result;
  }

  function draw() {
    for (const chart of charts) {
      const figure = figures[Number(chart.dataset.figure)];
      Plotly.react(chart, traces(figure.data), layout(figure.layout), {
        responsive: true,
        displaylogo: false,
        displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
        modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
      });
    }
  }

  function refuse() {
    for (const chart of charts) {
      const note = document.createElement("p");
      note.className = "empty";
      note.textContent = "plotly.min.js is not beside this page: the numbers are in the table below.";
      chart.classList.remove("chart");
      chart.replaceChildren(note);
      chart.parentElement.querySelector("details").open = true;
    }
  }

  function sortable(table) {
    const body = table.tBodies[0];
    const key = (row, column) => {
      const cell = row.cells[column];
      return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
    };
    const compare = (a, b) =>
      typeof a === "number" && typeof b === "number"
        ? a - b || 0
        : String(a).localeCompare(String(b), undefined, { numeric: true });
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].sort((a, b) => compare(key(a, column), key(b, column)));
        body.append(...(down ? rows.reverse() : rows));
      });
    });
  }

  document.querySelectorAll("table.sortable").forEach(sortable);
  if (typeof Plotly === "undefined") {
    refuse();
    return;
  }
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  // Paper is white: the charts are drawn anew in the light colours while printing.
  addEventListener("beforeprint", () => { root.classList.add("paper"); draw(); });
  addEventListener("afterprint", () => { root.classList.remove("paper"); draw(); });
})();
