package config

import (
	"encoding/json"

	"go.yaml.in/yaml/v3"

	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/secret"
)

// object is a part of a JSON Schema.
type object map[string]any

// Schema is the JSON Schema (2020-12) of backstep.yml, made of the declarations that the parser uses.
func Schema(kinds Kinds) []byte {
	var strategy string
	var weights []string
	var variables map[string]secret.Value
	var targets, routers, probes []object
	for _, k := range kinds.Targets {
		inputs, _ := k.New()
		targets = append(targets, kindSchema(k.Name, k.Help, inputs))
	}
	for _, k := range kinds.Routers {
		inputs, _ := k.New()
		routers = append(routers, kindSchema(k.Name, k.Help, inputs))
	}
	for _, k := range kinds.Probes {
		probes = append(probes, kindSchema(k.Name, k.Help, append((&ProbeConfig{}).inputs(k), k.Inputs()...)))
	}
	verify := closed((&Verify{}).inputs())
	verify["properties"].(object)["probes"] = object{"type": "array", "items": object{"oneOf": probes}}
	environment := closed((&Environment{}).inputs(&strategy, &weights, &variables))
	environment["properties"].(object)["target"] = object{"oneOf": targets}
	environment["properties"].(object)["router"] = object{"oneOf": routers}
	environment["properties"].(object)["verify"] = verify
	environment["required"] = []string{"target"}
	file := closed((&Config{}).inputs())
	file["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	file["title"] = "backstep.yml"
	file["properties"].(object)["environments"] = object{"type": "object", "minProperties": 1, "additionalProperties": environment}
	file["required"] = append(file["required"].([]string), "environments")
	text, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		panic(err) // it is made of strings, lists and maps
	}
	return append(text, '\n')
}

// closed is an object with these inputs as its properties and no others.
func closed(inputs []input.Input) object {
	properties, required := object{}, []string{}
	for _, in := range inputs {
		properties[in.Name] = property(in)
		if in.Required {
			required = append(required, in.Name)
		}
	}
	return object{"type": "object", "additionalProperties": false, "properties": properties, "required": required}
}

func kindSchema(name, help string, inputs []input.Input) object {
	o := closed(inputs)
	o["description"] = help
	o["properties"].(object)["kind"] = object{"const": name}
	o["required"] = append([]string{"kind"}, o["required"].([]string)...)
	return o
}

func property(in input.Input) object {
	value := object{"type": []string{"string", "number", "boolean"}}
	secret := object{"type": "object", "additionalProperties": false, "required": []string{"env"},
		"properties": object{"env": object{"type": "string"}}}
	p := object{"description": in.Help}
	switch {
	case in.Type == input.MapOf:
		p["type"], p["additionalProperties"] = "object", object{"oneOf": []object{value, secret}}
	case in.Type == input.SectionsOf:
		p["type"], p["additionalProperties"] = "object", closed(in.Inner)
	case in.Type == input.ListOf:
		p["type"], p["items"] = "array", value
	case in.Type == input.Number:
		p["type"] = "integer"
	case in.Secret:
		p["oneOf"] = []object{secret}
	default:
		p["type"] = value["type"]
	}
	if len(in.Options) > 0 {
		p["enum"] = in.Options
	}
	if in.Default != "" {
		p["default"] = in.Default
	}
	if in.Example != "" {
		var value any
		if err := yaml.Unmarshal([]byte(in.Example), &value); err != nil {
			panic(err) // a test parses every example
		}
		p["examples"] = []any{value}
	}
	return p
}
