// Texts whose contrast is below WCAG's 4.5 to 1, by their elements' classes and colours.
() => {
  const parse = c => { const m = c.match(/[\d.]+/g).map(Number); return m.length > 3 ? m : [...m.slice(0,3), 1]; };
  const lum = ([r,g,b]) => { const f = v => { v/=255; return v<=.03928? v/12.92 : ((v+.055)/1.055)**2.4; }; return .2126*f(r)+.7152*f(g)+.0722*f(b); };
  const out = {};
  for (const el of document.querySelectorAll("body *")) {
    if (![...el.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const r = el.getBoundingClientRect(); if (!r.width || !r.height) continue;
    const style = getComputedStyle(el); if (style.visibility === "hidden") continue;
    const svg = el instanceof SVGElement; const fg = parse(svg ? style.fill : style.color);
    let at = el, bg = null;
    while (at) { const c = parse(getComputedStyle(at).backgroundColor); if (c[3] > .5) { bg = c; break; } at = at.parentElement; }
    bg ??= [255,255,255,1];
    const [a,b] = [lum(fg), lum(bg)].sort((x,y)=>y-x); const ratio = (a+.05)/(b+.05);
    if (ratio < 4.5) out[`${el.tagName}.${el.getAttribute("class")||""} ${style.color} on ${bg.slice(0,3)}`] = ratio.toFixed(2) + " " + el.textContent.trim().slice(0,30);
  }
  return out;
}
