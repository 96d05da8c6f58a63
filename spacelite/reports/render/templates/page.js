// Draws each figure once it comes near the window, in the colours of the page.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function draw(place) {
    const source = document.querySelector(`script[data-for="${place.id}"]`);
    const { data, layout } = JSON.parse(source.textContent);
    layout.font = { family: "system-ui, sans-serif", size: 12, color: colour("--soft") };
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    const axes = layout.scene ? ["xaxis", "yaxis", "zaxis"] : ["xaxis", "yaxis"];
    for (const axis of axes) {
      const of = ((layout.scene ?? layout)[axis] ??= {});
      of.gridcolor = of.zerolinecolor = of.linecolor = colour("--line");
    }
    const config = { responsive: true, displaylogo: false, displayModeBar: false };
    return Plotly.react(place, data, layout, config).then(() => place.classList.add("drawn"));
  }

  // A narrow window begins with the report, not with a long list of its parts.
  if (!matchMedia("(min-width: 1100px)").matches) document.querySelector("nav details").open = false;

  const places = [...document.querySelectorAll(".plot")];
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) {
        seen.unobserve(target);
        draw(target);
      }
    }
  }, { rootMargin: "400px" });
  places.forEach((place) => seen.observe(place));
  const again = () => places.filter((one) => one.classList.contains("drawn"))
    .forEach(draw);
  dark.addEventListener("change", again);
})();
