// The package is CommonJS: imported from Grafana's .mjs files, its default would be the whole module.
export { Scrollbars as default } from './node_modules/react-custom-scrollbars-2/lib/index.js';
