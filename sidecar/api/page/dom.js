// Makes elements. What they hold is text, always: nothing that the API answers is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

// Characters that cannot be seen, or that turn the text around them, are shown by their number.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

export const byId = (id) => document.getElementById(id);

export const visible = (text) =>
  String(text).replace(UNSEEN, (sign) => `\\u${sign.codePointAt(0).toString(16).padStart(4, "0")}`);

/** An element: `el("p", {class: "quiet"}, "some text", anotherElement)`. Children that are null or false are left out. */
export const el = (name, attributes, ...children) => filled(document.createElement(name), attributes, children);

export const svg = (name, attributes, ...children) => filled(document.createElementNS(SVG, name), attributes, children);

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value != null && value !== false) element.setAttribute(name, value);
  }
  for (const child of children) {
    if (child != null && child !== false) element.append(child instanceof Node ? child : visible(child));
  }
  return element;
}

/** A value from elsewhere, apart from the direction of the text around it. */
export const value = (text, kind) => el("bdi", { class: kind }, text);

export const plural = (count, one, more = `${one}s`) => `${count} ${count === 1 ? one : more}`;
