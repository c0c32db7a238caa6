// Reads actions and workflows with GitHub's own parser: node github-parser.cjs FILE…. Bundled by e2e.sh, since the
// parser imports its schemas in a way that Node does not take.
import {readFileSync} from "node:fs";
import {basename} from "node:path";
import {NoOperationTraceWriter, parseWorkflow} from "@actions/workflow-parser";
import {parseAction} from "@actions/workflow-parser/actions/action-parser";

let faults = 0;
for (const name of process.argv.slice(2)) {
	const parse = basename(name) === "action.yml" ? parseAction : parseWorkflow;
	const {context} = parse({name, content: readFileSync(name, "utf8")}, new NoOperationTraceWriter());
	for (const e of context.errors.getErrors()) {
		console.error(`${name}: ${e.message}`);
		faults++;
	}
}
process.exit(faults > 0 ? 1 : 0);
