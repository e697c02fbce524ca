// The element's looks. Colours and sizes by custom properties, everything else by parts.
export const STYLE = `
:host { --okyeame-color: #1b5e3f; --okyeame-on-color: #ffffff; --okyeame-surface: #ffffff; --okyeame-text: #1c1c1c;
  --okyeame-warn: #a3260f; --okyeame-size: 4rem; display: inline-grid; justify-items: center; gap: .5rem;
  font: inherit; color: var(--okyeame-text); max-inline-size: 22rem; }
:host([hidden]) { display: none; }
* { box-sizing: border-box; font: inherit; }
[hidden] { display: none !important; }
button { cursor: pointer; border: 2px solid var(--okyeame-color); border-radius: 999px; padding: .5rem 1rem; min-block-size: 2.75rem;
  min-inline-size: 2.75rem; background: var(--okyeame-surface); color: var(--okyeame-color); }
button:focus-visible, input:focus-visible { outline: 3px solid var(--okyeame-text); outline-offset: 2px; }
[part~="button"] { position: relative; inline-size: var(--okyeame-size); block-size: var(--okyeame-size); padding: 0; display: grid;
  place-items: center; background: var(--okyeame-color); color: var(--okyeame-on-color); }
[part~="button"] svg { inline-size: 45%; block-size: 45%; fill: currentColor; pointer-events: none; }
[part~="level"] { position: absolute; inset: -.4rem; border-radius: 50%; border: .2rem solid var(--okyeame-color); opacity: 0;
  transform: scale(calc(1 + .25 * var(--level, 0))); }
:host([state="listening"]) [part~="level"], :host([state="hearing"]) [part~="level"] { opacity: .75; }
:host([state="hearing"]) [part~="button"] { background: var(--okyeame-warn); border-color: var(--okyeame-warn); }
:host([state="thinking"]) [part~="button"] { border-style: dashed; animation: turn 1.2s linear infinite; }
:host([state="thinking"]) [part~="button"] svg { animation: turn 1.2s linear infinite reverse; }
@keyframes turn { to { transform: rotate(1turn); } }
@media (prefers-reduced-motion: reduce) {
  :host([state="thinking"]) [part~="button"], :host([state="thinking"]) [part~="button"] svg { animation: none; }
  [part~="level"] { transform: none; }
}
[part~="status"] { margin: 0; min-block-size: 1.4em; text-align: center; overflow-wrap: anywhere; }
:host([state="failed"]) [part~="status"] { color: var(--okyeame-warn); }
progress { inline-size: 100%; accent-color: var(--okyeame-color); }
[part~="question"] { display: grid; gap: .5rem; justify-items: center; padding: .75rem 1rem; border: 2px solid var(--okyeame-color);
  border-radius: 1rem; background: var(--okyeame-surface); text-align: center; }
[part~="question"] p { margin: 0; }
[part~="choices"] { display: flex; gap: .75rem; }
[part~="yes"] { background: var(--okyeame-color); color: var(--okyeame-on-color); }
[part~="typed"] { display: flex; gap: .5rem; inline-size: 100%; }
input { flex: 1; min-inline-size: 0; min-block-size: 2.75rem; padding: .25rem .75rem; border: 2px solid #767676; border-radius: 999px;
  background: var(--okyeame-surface); color: var(--okyeame-text); }
[part~="type"] { border: 0; padding: .25rem .5rem; background: none; color: inherit; text-decoration: underline; }
@media (forced-colors: active) { [part~="button"] { border-color: ButtonText; } }
`;
