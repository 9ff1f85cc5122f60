package crashscreen

import (
	"fmt"
	"image"
	"strings"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/font/sfnt"

	"github.com/keepout-security/keepout/internal/crash"
)

// Shades of the screen, from its background up.
const (
	shadeFaint = 0xa8 // explains
	shadePlain = 0xd8
	shadeWhite = 0xff // matters
)

// The smallest and the largest screen that is drawn; others are taken as the nearest of them.
const (
	minWidth, minHeight = 320, 200
	maxWidth, maxHeight = 8192, 4320
)

// Type sizes are fractions of the screen's height, so that what can be read from two metres on one screen can be on
// another of the same size with more pixels. The body begins at a 25th of the height. On a screen 17 cm high, which
// is a laptop's, a 32nd has capitals of 3.8 mm, and who sees well reads 3 mm from two metres; only what does not fit
// otherwise gets smaller than that, down to a 44th.
const (
	bodyLargest  = 25
	bodyMiddle   = 32
	bodySmallest = 44
)

// Renderer draws records. It keeps the typefaces of the sizes that it has used; make one and use it for a whole
// session. It is not safe for concurrent use.
type Renderer struct {
	regular, bold *sfnt.Font
	faces         map[faceKey]font.Face
	glyphs        sfnt.Buffer
}

type faceKey struct {
	bold bool
	size int
}

// New reads the typefaces that are part of the program.
func New() (*Renderer, error) {
	regular, err := opentype.Parse(goregular.TTF)
	if err != nil {
		return nil, fmt.Errorf("read typeface: %w", err)
	}
	bold, err := opentype.Parse(gobold.TTF)
	if err != nil {
		return nil, fmt.Errorf("read bold typeface: %w", err)
	}
	return &Renderer{regular: regular, bold: bold, faces: map[faceKey]font.Face{}}, nil
}

// face returns a typeface of a size in pixels.
func (r *Renderer) face(bold bool, size int) font.Face {
	key := faceKey{bold, size}
	if f := r.faces[key]; f != nil {
		return f
	}
	from := r.regular
	if bold {
		from = r.bold
	}
	f, err := opentype.NewFace(from, &opentype.FaceOptions{Size: float64(size), DPI: 72, Hinting: font.HintingFull})
	if err != nil {
		return nil // only a nil option or font makes it fail
	}
	if len(r.faces) > 64 {
		clear(r.faces) // sizes change only with the screen
	}
	r.faces[key] = f
	return f
}

// can reports whether the typeface has a glyph for a character.
func (r *Renderer) can(c rune) bool {
	i, err := r.regular.GlyphIndex(&r.glyphs, c)
	return err == nil && i != 0
}

// Image draws a page on a screen of so many pixels. The image has exactly that size, unless it is smaller than
// 320×200 or larger than 8192×4320.
func (r *Renderer) Image(record *crash.Record, page Page, width, height int) *image.Gray {
	width = min(max(width, minWidth), maxWidth)
	height = min(max(height, minHeight), maxHeight)
	s := r.fit(record, page, width, height)
	img := image.NewGray(image.Rect(0, 0, width, height))
	for i := range s.rows {
		s.rows[i].draw(img)
	}
	if s.code != nil {
		s.code.draw(img, s.codeAt)
	}
	return img
}

// sheet is a page that has been laid out.
type sheet struct {
	rows   []row
	code   *square
	codeAt image.Point
	body   int // size of the type
}

// fit tries the type sizes from the largest down to the middle, then less text, then smaller type, then ever less
// text, and takes what fits first.
func (r *Renderer) fit(record *crash.Record, page Page, width, height int) sheet {
	largest, smallest := min(height/bodyLargest, width/34), max(min(height/bodySmallest, width/56), 9)
	if page == Details {
		return r.fitDetails(record, width, height, smallest)
	}
	middle := max(min(height/bodyMiddle, largest), smallest)
	whole := compose(record, page, r.can, 0)
	for body := largest; body > middle; body -= max(body/24, 1) {
		if s, ok := r.layOut(&whole, width, height, body); ok {
			return s
		}
	}
	var s sheet
	for _, try := range []struct{ squeeze, body int }{
		{0, middle},
		{1, middle},
		{2, middle},
		{2, (middle + smallest) / 2},
		{2, smallest},
		{3, smallest},
		{4, smallest},
		{squeezes, smallest},
	} {
		c := compose(record, page, r.can, try.squeeze)
		var ok bool
		if s, ok = r.layOut(&c, width, height, try.body); ok {
			break
		}
	}
	return s
}

// fitDetails leaves out lines at the beginning until the end fits.
func (r *Renderer) fitDetails(record *crash.Record, width, height, body int) sheet {
	c := compose(record, Details, r.can, 0)
	for {
		s, ok := r.layOut(&c, width, height, body)
		if ok || len(c.steps) < 2 {
			return s
		}
		c.steps = c.steps[1+len(c.steps)/32:]
		c.steps[0] = block{role: roleDetail, text: "…", gap: true}
	}
}

// measure is the width of a text in pixels.
func measure(f font.Face) func(string) int {
	return func(text string) int { return font.MeasureString(f, text).Ceil() }
}

// column is where rows are laid out, from top downwards.
type column struct {
	r           *Renderer
	left, right int
	body        int
	y           int
	rows        []row
}

// style is how a role looks at a body size.
func (c *column) style(role role) (f font.Face, shade uint8, leading int) {
	size := c.body
	bold := false
	shade = shadePlain
	switch role {
	case roleTitle:
		size, bold, shade = c.body*8/5, true, shadeWhite
	case roleStrong:
		bold, shade = true, shadeWhite
	case roleHeading:
		bold, shade = true, shadeWhite
	case roleFaint:
		shade = shadeFaint
	case roleDetail:
		size = c.body * 4 / 5
	case rolePlain, roleStep, roleChoice:
	}
	return c.r.face(bold, size), shade, size * 13 / 10
}

// add lays blocks out, one after the other.
func (c *column) add(blocks []block) {
	for i := range blocks {
		b := &blocks[i]
		f, shade, leading := c.style(b.role)
		if b.gap {
			c.y += leading / 2
		}
		left := c.left
		switch b.role {
		case roleTitle:
			f, leading = c.title(b.text)
		case roleStep:
			left += c.body * 17 / 5
		case roleChoice:
			left += c.choice(blocks)
		case roleStrong, rolePlain, roleFaint, roleHeading, roleDetail:
		}
		for n, line := range wrap(b.text, c.right-left, b.rows, measure(f), "…") {
			baseline := c.y + leading*4/5
			if n == 0 && b.role == roleStep {
				c.mark(b.mark, baseline)
			}
			if n == 0 && b.role == roleChoice {
				key := row{x: c.left + c.body/2, y: baseline, text: b.mark, face: c.r.face(true, c.body), shade: shadeWhite}
				c.rows = append(c.rows, key)
			}
			if b.role == roleStep && b.mark == ".." {
				shade = shadeWhite
			}
			c.rows = append(c.rows, row{x: left, y: baseline, text: line, face: f, shade: shade})
			c.y += leading
		}
		if b.role == roleTitle {
			c.y += leading / 4
		}
	}
}

// choice is how far the texts of a menu are indented: past the widest of its keys.
func (c *column) choice(blocks []block) int {
	wide := c.body
	for i := range blocks {
		if blocks[i].role == roleChoice {
			wide = max(wide, measure(c.r.face(true, c.body))(blocks[i].mark))
		}
	}
	return wide + c.body*3/2
}

// title takes the largest size at which a title fits on one line, within limits.
func (c *column) title(text string) (f font.Face, leading int) {
	largest := c.body * 9 / 5
	for size := largest; size >= c.body*5/4; size-- {
		f = c.r.face(true, size)
		leading = size * 13 / 10
		if measure(f)(text) <= c.right-c.left {
			return f, leading
		}
	}
	return f, leading
}

// mark draws a step's brackets at fixed places, with its word between them.
func (c *column) mark(text string, baseline int) {
	f := c.r.face(false, c.body)
	width := c.body * 3
	inside := measure(f)(text)
	shade := uint8(shadeFaint)
	if text == ".." || text == "fail" {
		shade = shadeWhite
	}
	closing := measure(f)("]")
	c.rows = append(c.rows,
		row{x: c.left, y: baseline, text: "[", face: f, shade: shadeFaint},
		row{x: c.left + (width-inside)/2, y: baseline, text: text, face: f, shade: shade},
		row{x: c.left + width - closing, y: baseline, text: "]", face: f, shade: shadeFaint})
}

// layOut places a page's parts; ok is false where they do not fit, and then the foot and the keys still are inside.
func (r *Renderer) layOut(c *composed, width, height, body int) (s sheet, ok bool) {
	margin := min(width, height) / 16
	keys, keysTop := r.keyCaps(c.keys, margin, width-margin, height-margin, body)
	top := column{r: r, left: margin, right: width - margin, body: body, y: margin}
	top.add(c.head)

	right := width - margin
	s.code = newSquare(c.link, height*9/40)
	if s.code != nil {
		s.codeAt = image.Pt(width-margin-s.code.size(), keysTop-body-s.code.size())
		right = s.codeAt.X - body
	}
	middle := column{r: r, left: margin, right: right, body: body, y: top.y}
	middle.add(c.steps)
	foot := column{r: r, left: margin, right: right, body: body, y: middle.y}
	foot.add(c.foot)
	bottom := keysTop - body/2
	ok = foot.y <= bottom && (s.code == nil || s.codeAt.Y >= top.y)
	if !ok {
		// The foot goes to the bottom, what would lie under it is left out, and the square code goes if it is in the way.
		shift := bottom - foot.y
		for i := range foot.rows {
			foot.rows[i].y += shift
		}
		top.rows, middle.rows = above(top.rows, middle.y+shift), above(middle.rows, middle.y+shift)
		if s.code != nil && s.codeAt.Y < top.y {
			s.code = nil
		}
	}
	s.body = body
	s.rows = append(append(append(top.rows, middle.rows...), foot.rows...), keys...)
	return s, ok
}

// above are the rows whose baselines are above a line.
func above(rows []row, y int) []row {
	for i := range rows {
		if rows[i].y > y {
			return rows[:i]
		}
	}
	return rows
}

// keyCaps lays the keys out above bottom, in as many rows as they need, and returns where the first row begins.
func (r *Renderer) keyCaps(keys []crash.Key, left, right, bottom, body int) (rows []row, top int) {
	name, text := r.face(true, body*9/10), r.face(false, body*9/10)
	leading := body * 17 / 10
	pad := body / 3
	x, line := left, 0
	for _, k := range keys {
		w := measure(name)(k.Name) + 2*pad
		label := wrap(k.Text, right-left-w-pad, 1, measure(text), "…")
		labelled := strings.Join(label, "")
		whole := w + pad + measure(text)(labelled)
		if x > left && x+whole > right {
			x = left
			line++
		}
		y := line * leading
		rows = append(rows,
			row{x: x + pad, y: y, text: k.Name, face: name, shade: shadeWhite, cap: image.Rect(x, y-body, x+w, y+body*2/5)},
			row{x: x + w + pad, y: y, text: labelled, face: text, shade: shadePlain})
		x += whole + body*6/5
	}
	if len(rows) == 0 {
		return nil, bottom
	}
	first := bottom - body/2 - line*leading
	for i := range rows {
		rows[i].y += first
		rows[i].cap = rows[i].cap.Add(image.Pt(0, first))
	}
	return rows, first - body
}
