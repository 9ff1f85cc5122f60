package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fail(errUsage.Error())
	}
	flags := flag.NewFlagSet("tally "+os.Args[1], flag.ExitOnError)
	dir := flags.String("dir", "", "folder of the lanes' results")
	lane := flags.String("lane", "", "name of the lane")
	_ = flags.Parse(os.Args[2:]) // it exits on an error
	ok, err := dispatch(os.Args[1], *dir, *lane, flags.Args())
	if err != nil {
		fail(err.Error())
	}
	if !ok {
		os.Exit(1)
	}
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(2)
}
