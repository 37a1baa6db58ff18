// Compiles Solidity sources into .abi and .bin beside them, which are committed:
// the network contract, and the one that tests of the contract gateway call.
// The output depends on nothing but the source and the pinned compiler.
//
//   npm ci && npm run build   rewrites the artifacts
//   npm ci && npm run check   fails if they are not what the source compiles to
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import solc from "solc";

const file = (name) => fileURLToPath(new URL(name, import.meta.url));
const check = process.argv.includes("--check");

for (const path of ["Network", "../internal/contract/contracttest/Sample"]) {
  const name = path.split("/").pop();
  const input = {
    language: "Solidity",
    sources: { [name]: { content: readFileSync(file(`${path}.sol`), "utf8") } },
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

  const { abi, evm } = output.contracts[name][name];
  const artifacts = {
    [`${path}.abi`]: JSON.stringify(abi, null, 1) + "\n",
    [`${path}.bin`]: evm.bytecode.object + "\n",
  };

  if (check) {
    const stale = Object.keys(artifacts).filter((a) => readFileSync(file(a), "utf8") !== artifacts[a]);
    if (stale.length > 0) {
      console.error(`${stale.join(" and ")}: not what ${path}.sol compiles to; run: npm run build`);
      process.exit(1);
    }
  } else {
    for (const [a, text] of Object.entries(artifacts)) writeFileSync(file(a), text);
  }
  console.log(`solc ${solc.version()}, ${name}: ${evm.bytecode.object.length / 2} bytes of creation code`);
}
