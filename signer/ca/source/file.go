// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package source

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
	"countersign.dev/countersign/signer/ca"
)

// filePoll is the interval at which files are read. File system notifications miss changes that a kubelet makes to
// a mounted volume, and changes on a remote file system.
const filePoll = 2 * time.Second

// Files is the [Source] of spec.ca.file: directories below a root directory, each with a tls.crt and a tls.key.
type Files struct {
	root    string // "" if there is none
	changed func(ctx context.Context, directory string)

	mu      sync.Mutex
	watched map[string]content
}

// content is the content of a directory, or the error of reading it.
type content struct {
	cert, key []byte
	err       error
}

func (c content) equal(other content) bool {
	return bytes.Equal(c.cert, other.cert) && bytes.Equal(c.key, other.key) && fmt.Sprint(c.err) == fmt.Sprint(other.err)
}

// NewFiles returns the Files below root. After each change of the result of Load, but for the passing of time, it calls
// changed with the name of the directory.
func NewFiles(root string, changed func(ctx context.Context, directory string)) *Files {
	return &Files{root: root, changed: changed, watched: map[string]content{}}
}

// Start reads the files periodically until ctx ends.
func (f *Files) Start(ctx context.Context) error {
	tick := time.NewTicker(filePoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			f.poll(ctx)
		}
	}
}

// poll reads all directories, and reports those that have changed.
func (f *Files) poll(ctx context.Context) {
	f.mu.Lock()
	before := maps.Clone(f.watched)
	f.mu.Unlock()
	for directory, last := range before {
		now := f.read(directory)
		if last.equal(now) {
			continue
		}
		f.mu.Lock()
		if _, still := f.watched[directory]; still {
			f.watched[directory] = now
		}
		f.mu.Unlock()
		f.changed(ctx, directory)
	}
}

// Keep sets the directories that are read. Others are dropped from memory.
func (f *Files) Keep(directories map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.watched, func(directory string, _ content) bool { return !directories[directory] })
	for directory := range directories {
		if _, watched := f.watched[directory]; !watched {
			f.watched[directory] = f.read(directory)
		}
	}
}

// Load implements [Source].
func (f *Files) Load(_ context.Context, signer *v1alpha1.Signer, now time.Time, fits Fits) (Result, error) {
	c, problem := f.load(signer.Spec.CA.File.Directory, now)
	return loaded(c, problem, fits), nil
}

func (f *Files) load(directory string, now time.Time) (*ca.CA, *ca.Problem) {
	if f.root == "" {
		return nil, ca.Problemf(v1alpha1.ReasonFileNotFound, "the signer reads no files: mount the CA, and set --ca-dir to the directory above %s", directory)
	}
	f.mu.Lock()
	files := f.watched[directory]
	f.mu.Unlock()
	if files.err != nil {
		return nil, ca.Problemf(v1alpha1.ReasonFileNotFound, "%v: mount the CA there as %s and %s, readable by the signer",
			files.err, corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
	return ca.Load(files.cert, files.key, now)
}

func (f *Files) read(directory string) content {
	if f.root == "" {
		return content{}
	}
	if !fs.ValidPath(directory) || path.Base(directory) != directory {
		return content{err: fmt.Errorf("%q is not the name of a directory", directory)}
	}
	root, err := os.OpenRoot(f.root) // symbolic links cannot leave it
	if err != nil {
		return content{err: err}
	}
	defer root.Close() //nolint:errcheck // nothing was written
	cert, err := readFile(root, path.Join(directory, corev1.TLSCertKey))
	if err != nil {
		return content{err: err}
	}
	key, err := readFile(root, path.Join(directory, corev1.TLSPrivateKeyKey))
	return content{cert: cert, key: key, err: err}
}

// readFile reads a file up to the first byte above the limit of its size.
func readFile(root *os.Root, name string) ([]byte, error) {
	file, err := root.Open(name)
	if err != nil {
		if inRoot, ok := errors.AsType[*fs.PathError](err); ok {
			err = inRoot.Err
		}
		return nil, fmt.Errorf("open %s: %w", path.Join(root.Name(), name), err)
	}
	defer file.Close() //nolint:errcheck // read only
	return io.ReadAll(io.LimitReader(file, ca.MaxSize+1))
}
