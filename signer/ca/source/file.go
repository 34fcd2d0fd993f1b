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

	added chan struct{} // a directory was added: read it now

	mu      sync.Mutex
	watched map[string]*content // nil until the directory has been read
	// reading are the directories that are being read. A volume whose storage does not answer blocks one goroutine.
	reading map[string]bool
}

// content is the content of a directory, or the error of reading it. It is immutable.
type content struct {
	cert, key []byte
	err       error
}

func (c *content) equal(other *content) bool {
	return c != nil && other != nil && bytes.Equal(c.cert, other.cert) && bytes.Equal(c.key, other.key) && fmt.Sprint(c.err) == fmt.Sprint(other.err)
}

// NewFiles returns the Files below root. After each change of the result of Load, but for the passing of time, it calls
// changed with the name of the directory.
func NewFiles(root string, changed func(ctx context.Context, directory string)) *Files {
	return &Files{root: root, changed: changed, added: make(chan struct{}, 1), watched: map[string]*content{}, reading: map[string]bool{}}
}

// Start reads the files periodically until ctx ends.
func (f *Files) Start(ctx context.Context) error {
	tick := time.NewTicker(filePoll)
	defer tick.Stop()
	for {
		f.poll(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-f.added:
		}
	}
}

// poll starts to read all directories that are not being read.
func (f *Files) poll(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for directory := range f.watched {
		if !f.reading[directory] {
			f.reading[directory] = true
			go f.refresh(ctx, directory)
		}
	}
}

// refresh reads a directory, and reports it if it has changed.
func (f *Files) refresh(ctx context.Context, directory string) {
	now := f.read(directory)
	f.mu.Lock()
	delete(f.reading, directory)
	last, watched := f.watched[directory]
	changed := watched && !last.equal(now)
	if changed {
		f.watched[directory] = now
	}
	f.mu.Unlock()
	if changed {
		f.changed(ctx, directory)
	}
}

// Keep sets the directories that are read. Others are dropped from memory. Keep does not wait for a read, so that a
// directory that does not answer delays no other Signer.
func (f *Files) Keep(directories map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.watched, func(directory string, _ *content) bool { return !directories[directory] })
	for directory := range directories {
		if _, watched := f.watched[directory]; !watched {
			f.watched[directory] = nil
			select {
			case f.added <- struct{}{}:
			default: // a poll follows in any case
			}
		}
	}
}

// Load implements [Source].
func (f *Files) Load(_ context.Context, signer *v1alpha1.Signer, now time.Time, fits Fits) (Result, error) {
	c, problem, err := f.load(signer.Spec.CA.File.Directory, now)
	if err != nil {
		return Result{}, err
	}
	return loaded(c, problem, fits), nil
}

// load returns the CA of a directory. The error is [ErrPending].
func (f *Files) load(directory string, now time.Time) (*ca.CA, *ca.Problem, error) {
	if f.root == "" {
		return nil, ca.Problemf(v1alpha1.ReasonFileNotFound, "the signer reads no files: mount the CA, and set --ca-dir to the directory above %s", directory), nil
	}
	f.mu.Lock()
	files := f.watched[directory]
	f.mu.Unlock()
	if files == nil {
		return nil, nil, ErrPending
	}
	if files.err != nil {
		problem := ca.Problemf(v1alpha1.ReasonFileNotFound, "%v: mount the CA there as %s and %s, readable by the signer",
			files.err, corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
		problem.Transient = !errors.Is(files.err, fs.ErrNotExist) && !errors.Is(files.err, fs.ErrPermission)
		return nil, problem, nil
	}
	c, problem := ca.Load(files.cert, files.key, now)
	return c, problem, nil
}

func (f *Files) read(directory string) *content {
	if f.root == "" {
		return &content{}
	}
	if !fs.ValidPath(directory) || path.Base(directory) != directory {
		return &content{err: fmt.Errorf("%q is not the name of a directory", directory)}
	}
	root, err := os.OpenRoot(f.root) // symbolic links cannot leave it
	if err != nil {
		return &content{err: err}
	}
	defer root.Close() //nolint:errcheck // nothing was written
	cert, err := readFile(root, path.Join(directory, corev1.TLSCertKey))
	if err != nil {
		return &content{err: err}
	}
	key, err := readFile(root, path.Join(directory, corev1.TLSPrivateKeyKey))
	return &content{cert: cert, key: key, err: err}
}

var errNotRegular = errors.New("not a regular file")

// readFile reads a file up to the first byte above the limit of its size.
func readFile(root *os.Root, name string) ([]byte, error) {
	info, err := root.Stat(name)
	var file *os.File
	if err == nil && !info.Mode().IsRegular() { // to open a pipe would block
		err = errNotRegular
	}
	if err == nil {
		file, err = root.Open(name)
	}
	if err != nil {
		if inRoot, ok := errors.AsType[*fs.PathError](err); ok {
			err = inRoot.Err
		}
		return nil, fmt.Errorf("open %s: %w", path.Join(root.Name(), name), err)
	}
	defer file.Close() //nolint:errcheck // read only
	return io.ReadAll(io.LimitReader(file, ca.MaxSize+1))
}
