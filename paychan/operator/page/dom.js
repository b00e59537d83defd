/** Elements from values: every text becomes a text node, so nothing that a machine or a payer named can become markup. */

const SVG = "http://www.w3.org/2000/svg";

/** Return an element. `attributes`: on... are listeners, true is an empty attribute, null and false are left out. */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same, of a picture. */
export function s(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const $ = (id) => document.getElementById(id);

/** Replace what differs: children that are equal stay, and with them focus, selection and open details. */
export function put(parent, ...children) {
  const fresh = children.flat(Infinity).filter(Boolean);
  const old = [...parent.childNodes];
  fresh.forEach((child, at) => {
    const node = typeof child === "string" ? document.createTextNode(child) : child;
    if (!old[at]) parent.append(node);
    else if (!old[at].isEqualNode(node)) mend(parent, old[at], node);
  });
  old.slice(fresh.length).forEach((node) => node.remove());
}

function mend(parent, old, fresh) {
  const canKeep =
    old.nodeType === 1 && fresh.nodeType === 1 && old.tagName === fresh.tagName && sameKey(old, fresh) && !fresh.hasAttribute("data-whole");
  if (!canKeep) {
    parent.replaceChild(fresh, old);
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  for (const { name, value } of [...fresh.attributes]) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  put(old, [...fresh.childNodes]);
}

const sameKey = (one, other) => one.getAttribute("data-key") === other.getAttribute("data-key");
