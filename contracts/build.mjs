// Compiles Network.sol into Network.abi and Network.bin, which are committed.
// The output depends on nothing but the source and the pinned compiler.
//
//   npm ci && npm run build   rewrites the artifacts
//   npm ci && npm run check   fails if they are not what the source compiles to
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import solc from "solc";

const file = (name) => fileURLToPath(new URL(name, import.meta.url));

const input = {
  language: "Solidity",
  sources: { "Network.sol": { content: readFileSync(file("Network.sol"), "utf8") } },
  settings: {
    evmVersion: "paris", // no PUSH0: runs on every chain in use, Besu included
    optimizer: { enabled: true, runs: 10_000 },
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } },
  },
};

const output = JSON.parse(solc.compile(JSON.stringify(input)));
const faults = output.errors ?? [];
for (const fault of faults) console.error(fault.formattedMessage);
if (faults.length > 0) process.exit(1); // warnings too

const { abi, evm } = output.contracts["Network.sol"].Network;
const artifacts = {
  "Network.abi": JSON.stringify(abi, null, 1) + "\n",
  "Network.bin": evm.bytecode.object + "\n",
};

if (process.argv.includes("--check")) {
  const stale = Object.keys(artifacts).filter((name) => readFileSync(file(name), "utf8") !== artifacts[name]);
  if (stale.length > 0) {
    console.error(`${stale.join(" and ")}: not what Network.sol compiles to; run: npm run build`);
    process.exit(1);
  }
} else {
  for (const [name, text] of Object.entries(artifacts)) writeFileSync(file(name), text);
}
console.log(`solc ${solc.version()}, ${evm.bytecode.object.length / 2} bytes of creation code`);
