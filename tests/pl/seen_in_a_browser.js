// What a page looks like from within, written where --dump-dom finds it. Bokeh's parts stand in shadow trees.
const deep = (root) => [...root.querySelectorAll("*")].flatMap((one) => [one, ...(one.shadowRoot ? deep(one.shadowRoot) : [])])
const texts = (chosen) => deep(document).filter((one) => one.matches(chosen)).map((one) => one.textContent)
const pause = (ms) => new Promise((then) => setTimeout(then, ms))
const painted = (canvas) => {
  const {width, height} = canvas
  return width * height > 0 && canvas.getContext("2d").getImageData(0, 0, width, height).data.some((value) => value > 0)
}
const look = async () => {
  for (let k = 0; k < 100 && !window.Bokeh?.documents[0]?.is_idle; k++) await pause(100)
  const views = [...Bokeh.index.query((view) => view.model.type == "Figure")]
  const source = Bokeh.documents[0].get_model_by_name("rows")
  const found = {panels: views.length, painted: deep(document).filter((one) => one.tagName == "CANVAS" && painted(one)).length}
  found.before = texts("i")
  // the mouse over the first row, in the last panel
  const [view, {x, y}] = [views.at(-1), source.data]
  const {events_el: area} = view.canvas_view
  const {left, top} = area.getBoundingClientRect()
  const place = {clientX: left + view.frame.x_scale.compute(x[0]), clientY: top + view.frame.y_scale.compute(y[0])}
  for (const kind of ["pointerover", "pointermove"]) {
    area.dispatchEvent(new PointerEvent(kind, {...place, bubbles: true, composed: true, pointerType: "mouse", isPrimary: true}))
    await pause(200)
  }
  found.labels = texts(".bk-tooltip-row-label")
  found.values = texts(".bk-tooltip-row-value")
  found.options = texts("option")
  found.markup = texts("b, script[data-planted]")
  // the second gene
  const [box] = deep(document).filter((one) => one.tagName == "SELECT")
  box.selectedIndex = 1
  box.dispatchEvent(new Event("change"))
  await pause(200)
  found.after = texts("i")
  found.predicted = Array.from(source.data.predicted)
  found.limits = views.map(({model}) => model.renderers.at(-1).glyph.fill_color.transform).map(({low, high}) => [low, high])
  // a zoom of one panel
  views[0].model.x_range.start += 10
  found.starts = [...new Set(views.map(({frame}) => frame.x_range.start))]
  return found
}
look().catch((error) => ({failed: `${error}\n${error.stack}`})).then((found) => {
  const told = document.body.appendChild(document.createElement("pre"))
  told.id = "found"
  told.textContent = JSON.stringify({...found, errors})
})
