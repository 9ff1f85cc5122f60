package artifact

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keepout-security/keepout/internal/artifact/layout"
)

// The parts of SPDX 2.3 that we write.
type spdx struct {
	Version       string         `json:"spdxVersion"`
	License       string         `json:"dataLicense"`
	ID            string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	Creation      spdxCreation   `json:"creationInfo"`
	Packages      []spdxPackage  `json:"packages"`
	Files         []spdxFile     `json:"files"`
	Relationships []spdxRelation `json:"relationships"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	ID       string       `json:"SPDXID"`
	Name     string       `json:"name"`
	Version  string       `json:"versionInfo"`
	Download string       `json:"downloadLocation"`
	Analyzed bool         `json:"filesAnalyzed"`
	Refs     []spdxExtRef `json:"externalRefs,omitempty"`
}

type spdxExtRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxFile struct {
	ID        string         `json:"SPDXID"`
	Name      string         `json:"fileName"`
	Checksums []spdxChecksum `json:"checksums"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRelation struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

const (
	spdxDocument = "SPDXRef-DOCUMENT"
	spdxMain     = "SPDXRef-Package"
)

// makeSBOM lists what is in a package: each file by digest, and each module that a Go program says it was built from.
// The same files give the same text.
func makeSBOM(in Input, list []entry) ([]byte, error) {
	r := in.Release
	doc := spdx{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: spdxDocument, Name: r.TargetPath(),
		Creation:      spdxCreation{Created: "1970-01-01T00:00:00Z", Creators: []string{"Tool: keepout"}},
		Packages:      []spdxPackage{{ID: spdxMain, Name: r.Provider, Version: r.Version, Download: "NOASSERTION"}},
		Files:         []spdxFile{},
		Relationships: []spdxRelation{{From: spdxDocument, Type: "DESCRIBES", To: spdxMain}},
	}
	all := sha256.New()
	modules := map[string]string{}
	for i, e := range list {
		path := filepath.Join(in.Files, filepath.FromSlash(e.name))
		sum, err := sumOf(path)
		if err != nil {
			return nil, fmt.Errorf("list %s in the bill of materials: %w", e.name, err)
		}
		fmt.Fprintf(all, "%s %s\n", sum, e.name)
		id := fmt.Sprintf("SPDXRef-File-%d", i+1)
		doc.Files = append(doc.Files, spdxFile{
			ID: id, Name: "./" + e.name, Checksums: []spdxChecksum{{Algorithm: "SHA256", Value: sum}},
		})
		doc.Relationships = append(doc.Relationships, spdxRelation{From: spdxMain, Type: "CONTAINS", To: id})
		addModules(modules, path)
	}
	doc.addModules(modules)
	// The namespace must differ between documents, and be the same for the same one.
	doc.Namespace = "https://keepout.example/spdx/" + r.TargetPath() + "-" + hex.EncodeToString(all.Sum(nil))
	return json.MarshalIndent(doc, "", " ")
}

func (d *spdx) addModules(modules map[string]string) {
	names := make([]string, 0, len(modules))
	for m := range modules {
		names = append(names, m)
	}
	slices.Sort(names)
	for i, m := range names {
		id := fmt.Sprintf("SPDXRef-Module-%d", i+1)
		path, version, _ := strings.Cut(m, "@")
		d.Packages = append(d.Packages, spdxPackage{
			ID: id, Name: path, Version: version, Download: "NOASSERTION",
			Refs: []spdxExtRef{{Category: "PACKAGE-MANAGER", Type: "purl", Locator: "pkg:golang/" + m}},
		})
		d.Relationships = append(d.Relationships, spdxRelation{From: spdxMain, Type: "DEPENDS_ON", To: id})
	}
}

// addModules adds what a Go program was built from. Anything else has nothing to add.
func addModules(modules map[string]string, path string) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		modules[m.Path+"@"+m.Version] = path
	}
}

func sumOf(path string) (_ string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sbomKind tells the two formats apart, by what each of them demands.
func sbomKind(text []byte) (mediaType string, err error) {
	var doc struct {
		SPDX    string `json:"spdxVersion"`
		Cyclone string `json:"bomFormat"`
		Spec    string `json:"specVersion"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return "", fmt.Errorf("the bill of materials is no JSON: %w", err)
	}
	switch {
	case strings.HasPrefix(doc.SPDX, "SPDX-"):
		return layout.SPDXType, nil
	case doc.Cyclone == "CycloneDX" && doc.Spec != "":
		return layout.CycloneType, nil
	}
	return "", errors.New("the bill of materials is neither SPDX nor CycloneDX: give one of them as JSON, or none")
}
