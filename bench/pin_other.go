//go:build !linux

package main

func pinToProcessor(int) {}
