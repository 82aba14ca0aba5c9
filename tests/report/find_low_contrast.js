// Returns each text of the page whose contrast with what is behind it is below 4.5 to 1 (WCAG 2.2, 1.4.3).
(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const parse = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const linear = (part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const luminance = ([red, green, blue]) =>
    0.2126 * linear(red / 255) + 0.7152 * linear(green / 255) + 0.0722 * linear(blue / 255);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color[3] > 0.99) return color;
    }
    return [255, 255, 255, 1];
  };
  const low = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    if (!text || node.closest("script,style,template,.hidden,select") || !node.checkVisibility()) continue;
    const isDrawn = node.namespaceURI.endsWith("svg");
    // Numbers in badges stand on the badge's own colour.
    const badge = isDrawn && node.closest(".badge,.point");
    const style = getComputedStyle(node);
    const onBadge = badge && (badge.classList.contains("badge") || node.classList.contains("number"));
    const back = onBadge ? parse(getComputedStyle(badge).getPropertyValue("--arm")) : behind(node);
    const opacity = Number(style.opacity);
    const ink = parse(isDrawn ? style.fill : style.color).map((part, i) => part * opacity + (back[i] ?? 1) * (1 - opacity));
    const [dark, light] = [luminance(ink), luminance(back)].sort((one, other) => one - other);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < 4.5) low.add(`${node.tagName}.${node.getAttribute("class")} ${ratio.toFixed(2)} ${text.slice(0, 20)}`);
  }
  return [...low];
})()
