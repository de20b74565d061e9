"use strict";
// Draws every figure that stands as JSON behind its place, in the colours of the page, and again when those change.
(() => {
  const theme = () => {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = { gridcolor: color("--grid"), zerolinecolor: color("--line"), linecolor: color("--line"), fixedrange: true };
    return {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: color("--text"), family: getComputedStyle(document.body).fontFamily, size: 12 },
      hoverlabel: { bgcolor: color("--panel"), bordercolor: color("--line"), font: { color: color("--text") } },
      xaxis: axis,
      yaxis: axis,
    };
  };
  const merge = (base, over) => {
    const merged = { ...base };
    for (const [key, value] of Object.entries(over)) {
      const nested = value && typeof value === "object" && !Array.isArray(value) && merged[key];
      merged[key] = nested ? merge(merged[key], value) : value;
    }
    return merged;
  };
  const options = { responsive: true, displayModeBar: false, displaylogo: false, showTips: false };
  const draw = (place, figure) =>
    Plotly.react(place, figure.data, merge(theme(), { ...figure.layout, dragmode: false }), options);
  const places = [...document.querySelectorAll("script.figure")].map((source) => [
    source.previousElementSibling,
    JSON.parse(source.textContent),
  ]);
  // By script, not by attribute: a policy without inline styles lets only this through.
  places.forEach(([place]) => { place.style.height = `${place.dataset.height}px`; });
  // A figure inside closed details has no width: it is drawn when it is first seen.
  const drawn = new Set();
  const show = ([place, figure]) => {
    if (place.offsetWidth && !drawn.has(place)) {
      drawn.add(place);
      draw(place, figure);
    }
  };
  places.forEach(show);
  document.querySelectorAll("details").forEach((fold) => fold.addEventListener("toggle", () => places.forEach(show)));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    places.filter(([place]) => drawn.has(place)).forEach(([place, figure]) => draw(place, figure)));
})();
