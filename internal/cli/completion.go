package cli

import (
	"fmt"
	"strings"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/step"
)

// completion is the completion script of the shell that args name: bash, zsh or fish.
func completion(args []string, steps []step.Step) (string, error) {
	if len(args) != 1 {
		return "", fault.Inputf("completion wants the name of a shell").WithHint("backstep completion bash, zsh or fish")
	}
	var b strings.Builder
	switch shell := args[0]; shell {
	case "bash", "zsh":
		if shell == "zsh" {
			b.WriteString("autoload -U +X bashcompinit && bashcompinit\n")
		}
		b.WriteString("_backstep() {\n  local words\n  case \"${COMP_WORDS[1]}\" in\n")
		var names []string
		for _, s := range steps {
			names = append(names, s.Name)
			fmt.Fprintf(&b, "    %s) words='%s' ;;\n", s.Name, strings.Join(flags(s), " "))
		}
		fmt.Fprintf(&b, "    *) words='%s' ;;\n  esac\n", strings.Join(names, " "))
		b.WriteString("  COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n}\ncomplete -o default -F _backstep backstep\n")
	case "fish":
		for _, s := range steps {
			fmt.Fprintf(&b, "complete -c backstep -n __fish_use_subcommand -a %s\n", s.Name)
			for _, in := range s.Inputs {
				fmt.Fprintf(&b, "complete -c backstep -n '__fish_seen_subcommand_from %s' -l %s\n", s.Name, in.Name)
			}
		}
	default:
		return "", fault.Inputf("shell %q is not one of bash, zsh, fish", shell)
	}
	return b.String(), nil
}

func flags(s step.Step) []string {
	var all []string
	for _, in := range s.Inputs {
		all = append(all, "--"+in.Name)
	}
	return all
}
