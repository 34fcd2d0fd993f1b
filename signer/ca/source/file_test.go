// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/signer/ca"
)

// TestFiles follows directories through their changes.
func TestFiles(t *testing.T) {
	root, one := t.TempDir(), newPair(t, "One")
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(name string) {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	changed := make(chan string, 10)
	f := NewFiles(root, func(_ context.Context, directory string) { changed <- directory })
	f.Keep(map[string]bool{"serving": true})
	if _, _, err := f.load("serving", now); !errors.Is(err, ErrPending) {
		t.Errorf("before it was read: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for _, step := range []struct {
		name      string
		do        func()
		want      string // the Problem, or the subject of the CA
		transient bool
	}{
		{"missing", func() {}, "FileNotFound: open serving/tls.crt: no such file or directory", false},
		{"there", func() {
			write("serving/tls.key", one.keyPEM(t))
			write("serving/tls.crt", one.certPEM())
		}, "CN=One", false},
		{"a directory in place of the file", func() {
			remove("serving/tls.crt")
			write("serving/tls.crt/x", nil)
		}, "FileNotFound: open serving/tls.crt: not a regular file", true},
		{"removed", func() { remove("serving") }, "FileNotFound: open serving/tls.crt: no such file or directory", false},
	} {
		step.do()
		f.poll(ctx)
		for got, deadline := "", time.After(10*time.Second); got != step.want; {
			select {
			case <-changed:
			case <-deadline:
				t.Fatalf("%s: got %q, want %q", step.name, got, step.want)
			}
			f.poll(ctx) // the files of one step can be read in between
			c, problem, err := f.load("serving", now)
			if err != nil {
				t.Fatal(step.name, err)
			}
			if c != nil {
				got = c.Status().Subject
				continue
			}
			got, _, _ = strings.Cut(strings.ReplaceAll(describe(problem), root+"/", ""), ": mount")
			if got == step.want && problem.Transient != step.transient {
				t.Errorf("%s: transient %v", step.name, problem.Transient)
			}
		}
	}
	f.Keep(nil)
	if len(f.watched) != 0 {
		t.Errorf("directories that no Signer names: %v", f.watched)
	}
}

// TestFiles_hanging: a directory that does not answer, such as a volume of a storage that hangs, delays neither other
// Signers nor the shutdown, and blocks one goroutine.
func TestFiles_hanging(t *testing.T) {
	root, one := t.TempDir(), newPair(t, "One")
	if err := os.Mkdir(filepath.Join(root, "good"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"tls.crt": one.certPEM(), "tls.key": one.keyPEM(t)} {
		if err := os.WriteFile(filepath.Join(root, "good", name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	changed := make(chan string, 10)
	f := NewFiles(root, func(_ context.Context, directory string) { changed <- directory })
	f.reading["bad"] = true // permanently
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- f.Start(ctx) }()
	f.Keep(map[string]bool{"good": true, "bad": true})
	load := func(directory string) (*ca.CA, error) {
		signer := &v1alpha1.Signer{}
		signer.Spec.CA.File = &v1alpha1.FileCA{Directory: directory}
		result, err := f.Load(t.Context(), signer, now, func(*ca.CA) *ca.Problem { return nil })
		if result.Problem != nil {
			err = fmt.Errorf("%s: %s", result.Problem.Reason, result.Problem.Message)
		}
		return result.Newest, err
	}
	select {
	case directory := <-changed:
		if c, err := load("good"); directory != "good" || err != nil || c == nil {
			t.Errorf("%s changed; %v", directory, err)
		}
	case <-time.After(filePoll - filePoll/4):
		t.Error("no directory was read at once")
	}
	if _, err := load("bad"); !errors.Is(err, ErrPending) {
		t.Errorf("the directory that hangs: %v", err)
	}
	stop()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
