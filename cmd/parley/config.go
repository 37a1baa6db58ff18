package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/parley-node/parley/internal/node"
)

type configCmd struct {
	Show   configShowCmd   `cmd:"" aliases:"print" help:"Show the configuration with all defaults, and where each value comes from."`
	Check  configCheckCmd  `cmd:"" help:"Say whether the configuration is right."`
	Import configImportCmd `cmd:"" help:"Write a configuration in FireFly's core format in the native form, and say what became of each line."`
	Keys   configKeysCmd   `cmd:"" help:"List every key, with the environment variable that sets it."`
}

type configShowCmd struct {
	folder
	settings
	Plain bool `help:"Only the values, to be written into a file."`
}

func (cmd configShowCmd) Run() error {
	c, origins, err := cmd.source(cmd.folder).Load()
	if err != nil {
		return usageError{err}
	}
	show := func() ([]byte, error) { return c.Show(origins) }
	if cmd.Plain {
		show = c.Marshal
	}
	text, err := show()
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(text)
	return err
}

type configCheckCmd struct {
	folder
	settings
}

func (cmd configCheckCmd) Run() error {
	c, origins, err := cmd.source(cmd.folder).Read()
	if err != nil {
		return usageError{err}
	}
	for _, name := range origins.Unused {
		fmt.Printf("The environment variable %s names no key of the configuration.\n", name)
	}
	if len(c.Namespaces) > 0 {
		fmt.Printf("The configuration of %d namespaces in %s is right.\n", len(c.Namespaces), c.Dir)
		return nil
	}
	whose := c.Org.Name
	if !c.Networked() {
		whose = "namespace " + c.Namespace
	}
	fmt.Printf("The configuration of %s in %s is right.\n", whose, c.Dir)
	return nil
}

type configKeysCmd struct{}

func (configKeysCmd) Run() error {
	for _, key := range node.Keys() {
		fmt.Printf("%-45s %s\n", key, node.EnvName(key))
	}
	return nil
}

type configImportCmd struct {
	File string `arg:"" type:"existingfile" help:"The configuration in FireFly's core format." placeholder:"FILE"`
	Out  string `type:"path" help:"Where to write the native form; nothing may be there. Standard output without it." placeholder:"FILE"`
}

func (cmd configImportCmd) Run() error {
	c, notes, err := node.Import(cmd.File)
	for _, n := range notes {
		fmt.Fprintln(os.Stderr, n)
	}
	if err != nil {
		return usageError{err}
	}
	text, err := c.Marshal()
	if err != nil {
		return err
	}
	if cmd.Out == "" {
		_, err = os.Stdout.Write(text)
	} else {
		err = writeNew(cmd.Out, text)
	}
	if err != nil {
		return err
	}
	if wrong := c.Check(); wrong != nil {
		fmt.Fprintf(os.Stderr, "What is still to be done:\n%v\n", wrong)
	}
	return nil
}

// writeNew writes a file that is not there yet.
func writeNew(path string, text []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.Write(text)
	return err
}
