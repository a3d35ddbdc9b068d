// Where the states of a machine stand, and how the arrows between them run: on an oval, its rows at equal heights.

export const HEIGHT = 34;
const EDGE = 6;
const AROUND = 150;

/**
 * `states`: names in order, the first at the top, on clockwise; `widthOf`: each one's own width; `width`: all there is.
 * Gives the height of it all, and each state's `{x, y, w}`, its middle and its width.
 */
export function placed(states, widthOf, width) {
  const most = states.length === 1 ? width : width / 2 - 12;
  const widths = states.map((state) => Math.min(widthOf(state), most));
  const sides = Math.ceil((states.length - 1) / 2); // how many stand on the right
  const rows = states.length % 2 ? sides + 1 : sides + 1 || 1;
  const gap = width < 480 ? 58 : Math.max(64, Math.min(130, 380 / (rows - 1)));
  const height = (rows - 1) * gap + HEIGHT + 2 * EDGE;
  const radius = Math.min(width / 2 - Math.max(...widths) / 2 - EDGE, 300);
  const places = new Map();
  states.forEach((state, n) => {
    const right = n > 0 && n <= sides;
    const row = n <= sides ? n : states.length - n;
    const alone = n === 0 || (states.length % 2 === 0 && row === sides);
    const reach = Math.sqrt(Math.sin((Math.PI * row) / (states.length % 2 ? sides + 0.5 : sides)));
    const aside = Math.max(radius * (reach || 0), widths[n] / 2 + 10);
    const x = width / 2 + (alone ? 0 : right ? aside : -aside);
    places.set(state, { x, y: EDGE + HEIGHT / 2 + row * gap, w: widths[n], row, side: alone ? 0 : right ? 1 : -1 });
  });
  return { height, places };
}

/** The arrow from one state to another, as a path: bent, so that the way back is another one. */
export function arrow(from, to, middle) {
  const dx = to.x - from.x;
  const dy = to.y - from.y;
  const length = Math.hypot(dx, dy) || 1;
  const half = { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 };
  const sameSide = from.side !== 0 && from.side === to.side;
  const passes = sameSide && Math.abs(from.row - to.row) > 1; // then it runs around those that stand between
  const inwards = passes ? -from.side * Math.min(AROUND, Math.abs(middle - half.x)) : sameSide ? 0 : (middle - half.x) * 0.12;
  const bend = Math.min(0.12 * length, 26) / length;
  const control = { x: half.x + inwards - dy * bend, y: half.y + dx * bend };
  const start = border(from, control, 0);
  const end = border(to, control, 3);
  return `M${start.x} ${start.y} Q${round(control.x)} ${round(control.y)} ${end.x} ${end.y}`;
}

/** Where the line from the middle of a state to a point leaves its box, and a little `beyond`. */
function border(place, point, beyond) {
  const dx = point.x - place.x;
  const dy = point.y - place.y;
  const share = Math.min((place.w / 2 + beyond) / Math.abs(dx || 1e-9), (HEIGHT / 2 + beyond) / Math.abs(dy || 1e-9));
  return { x: round(place.x + dx * share), y: round(place.y + dy * share) };
}

const round = (number) => Math.round(number * 10) / 10;
