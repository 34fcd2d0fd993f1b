// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"countersign.dev/countersign/api/v1alpha1"
)

// filePoll is how often files are looked at: notifications miss what a kubelet does to a mounted
// volume, or a remote file system.
const filePoll = 2 * time.Second

// Files keeps CAs in folders below a root folder: each holds tls.crt and tls.key.
type Files struct {
	root    string // "" if there is none
	changed func(ctx context.Context, directory string)

	mu   sync.Mutex
	kept map[string]content
}

// content is what was read of a folder, or why it could not be.
type content struct {
	cert, key []byte
	err       error
}

// NewFiles makes a Files for the folders below root. After each change of what Load returns for a
// folder that is kept, but for the passing of time, changed is called with its name.
func NewFiles(root string, changed func(ctx context.Context, directory string)) *Files {
	return &Files{root: root, changed: changed, kept: map[string]content{}}
}

// Start looks at the files that are kept until ctx ends.
func (f *Files) Start(ctx context.Context) error {
	tick := time.NewTicker(filePoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		f.mu.Lock()
		last := maps.Clone(f.kept)
		f.mu.Unlock()
		for directory, before := range last {
			now := f.read(directory)
			if bytes.Equal(before.cert, now.cert) && bytes.Equal(before.key, now.key) && fmt.Sprint(before.err) == fmt.Sprint(now.err) {
				continue
			}
			f.mu.Lock()
			if _, still := f.kept[directory]; still {
				f.kept[directory] = now
			}
			f.mu.Unlock()
			f.changed(ctx, directory)
		}
	}
}

// Keep makes directories those that are looked at: others are forgotten.
func (f *Files) Keep(directories map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.kept, func(directory string, _ content) bool { return !directories[directory] })
	for directory := range directories {
		if _, kept := f.kept[directory]; !kept {
			f.kept[directory] = f.read(directory)
		}
	}
}

// Load loads the CA from a folder that is kept. The error is a [*Problem].
func (f *Files) Load(directory string, now time.Time) (*CA, error) {
	if f.root == "" {
		return nil, problemf(v1alpha1.ReasonFileNotFound, "the signer reads no files: mount the CA, and name the folder above %s with --ca-dir", directory)
	}
	f.mu.Lock()
	p := f.kept[directory]
	f.mu.Unlock()
	if p.err != nil {
		return nil, problemf(v1alpha1.ReasonFileNotFound, "%v: mount the CA there as %s and %s, readable by the signer",
			p.err, corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
	return Load(p.cert, p.key, now)
}

func (f *Files) read(directory string) content {
	if f.root == "" {
		return content{}
	}
	if !fs.ValidPath(directory) || path.Base(directory) != directory {
		return content{err: fmt.Errorf("%q is not the name of a folder", directory)}
	}
	root, err := os.OpenRoot(f.root) // which no link below it leads out of
	if err != nil {
		return content{err: err}
	}
	defer root.Close() //nolint:errcheck // nothing was written
	cert, err := readFile(root, path.Join(directory, corev1.TLSCertKey))
	key, err2 := readFile(root, path.Join(directory, corev1.TLSPrivateKeyKey))
	if err == nil { // one says enough, and stays on one line
		err = err2
	}
	return content{cert: cert, key: key, err: err}
}

// readFile reads as much of a file as makes it too large.
func readFile(root *os.Root, name string) ([]byte, error) {
	file, err := root.Open(name)
	if err != nil {
		if inRoot, ok := errors.AsType[*fs.PathError](err); ok {
			err = inRoot.Err
		}
		return nil, fmt.Errorf("open %s: %w", path.Join(root.Name(), name), err)
	}
	defer file.Close() //nolint:errcheck // read only
	return io.ReadAll(io.LimitReader(file, maxSize+1))
}
