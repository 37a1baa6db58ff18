package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"strings"
)

// The page is A4 at about 130 dpi, in 16 levels of grey as a scanner in an
// office saves it.
const (
	pageWidth  = 1080
	pageHeight = 1528
	greyLevels = 16
)

// page is how much ink lies on each point, 0 to 255. Everything is computed in
// integers, so that all processors draw the same bytes.
type page struct {
	ink    [pageHeight][pageWidth]uint8
	random *rand.Rand
}

// scan draws a filled-in claim form as a scanner would see it.
func scan() ([]byte, error) {
	p := &page{random: rand.New(rand.NewPCG(2026, 1))}
	p.form()
	var out bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(&out, p.scanned()); err != nil {
		return nil, fmt.Errorf("encode the scan: %w", err)
	}
	return out.Bytes(), nil
}

// form draws frame, title, labelled fields, a table of items and a signature.
func (p *page) form() {
	const left, right = 80, pageWidth - 80
	p.print(left, 70, 6, "SYNTHETIC SAMPLE")
	p.print(left, 140, 3, "MEDICAL CLAIM FORM - NO REAL PATIENT")
	p.frame(left-20, 190, right+20, pageHeight-90)

	y := 215
	for row := range 6 {
		p.line(left-20, y+70, right+20, y+70, 1)
		for column := range 2 {
			x := left + column*480
			p.words(x, y, 9, 150, 90)      // printed label
			p.words(x+8, y+28, 20, 380, 0) // what somebody filled in
			if column == 1 {
				p.line(x-16, y-20, x-16, y+70, 1)
			}
		}
		y += 80
		if row == 2 {
			p.line(left-20, y-8, right+20, y-8, 3)
		}
	}
	y += 10
	columns := []int{left - 20, left + 50, left + 210, left + 640, left + 760, right + 20}
	for row := range 12 {
		p.line(left-20, y, right+20, y, 1+2*(1-min(row, 1)))
		for i := range len(columns) - 1 {
			width := columns[i+1] - columns[i] - 30
			p.words(columns[i]+14, y+13, 14, width*(50+p.random.IntN(50))/100, 20)
		}
		y += 42
	}
	p.line(left-20, y, right+20, y, 3)
	for _, x := range columns[1 : len(columns)-1] {
		p.line(x, y-12*42, x, y, 1)
	}
	p.words(left, y+30, 10, 700, 80)
	p.words(left, y+52, 10, 560, 80)
	p.signature(left+520, y+150)
	p.line(left+480, y+190, right, y+190, 1)
	p.words(left+480, y+200, 8, 160, 90)
	p.stamp(left+190, y+150, 64)
}

// dot puts ink around a point; the rim is lighter, as ink on paper is.
func (p *page) dot(x, y, radius int) {
	for dy := -radius; dy <= radius; dy++ {
		for dx := -radius; dx <= radius; dx++ {
			distance := dx*dx + dy*dy
			if distance > radius*radius+1 || x+dx < 0 || y+dy < 0 || x+dx >= pageWidth || y+dy >= pageHeight {
				continue
			}
			ink := uint8(230 - 110*distance/(radius*radius+1))
			point := &p.ink[y+dy][x+dx]
			*point = max(*point, ink)
		}
	}
}

func (p *page) line(x0, y0, x1, y1, width int) {
	steps := max(abs(x1-x0), abs(y1-y0), 1)
	for i := range steps + 1 {
		p.dot(x0+(x1-x0)*i/steps, y0+(y1-y0)*i/steps, width/2)
	}
}

func (p *page) frame(x0, y0, x1, y1 int) {
	p.line(x0, y0, x1, y0, 3)
	p.line(x1, y0, x1, y1, 3)
	p.line(x1, y1, x0, y1, 3)
	p.line(x0, y1, x0, y0, 3)
}

// words fills a width with strokes that look like text from afar. Regular text
// (of 100) is even, as if printed; 0 wavers like a hand.
func (p *page) words(x, y, height, width, regular int) {
	wobble := 1 + (100-regular)*height/500
	for end := x + width; x < end; {
		for range 2 + p.random.IntN(7) {
			if x+height > end {
				return
			}
			// Three strokes between points of a grid of 3 by 3 make a letter.
			from := p.random.IntN(9)
			for range 3 {
				to := p.random.IntN(9)
				p.line(
					x+from%3*height/4+p.random.IntN(wobble), y+from/3*height/2+p.random.IntN(wobble),
					x+to%3*height/4+p.random.IntN(wobble), y+to/3*height/2+p.random.IntN(wobble),
					1+height/9)
				from = to
			}
			x += height*3/4 + 1
		}
		x += height / 2
	}
}

// signature is one restless line.
func (p *page) signature(x, y int) {
	baseline := y
	for range 24 {
		nextX, nextY := x+2+p.random.IntN(24), baseline+p.random.IntN(64)-32
		p.line(x, y, nextX, nextY, 4)
		x, y = nextX, nextY
	}
}

// stamp is a round stamp with the word that matters in it.
func (p *page) stamp(x, y, radius int) {
	for _, r := range []int{radius, radius - 8} {
		for dy := -r; dy <= r; dy++ {
			for dx := -r; dx <= r; dx++ {
				if d := dx*dx + dy*dy; d <= r*r && d >= (r-3)*(r-3) && p.random.IntN(5) > 0 {
					p.dot(x+dx, y+dy, 0)
				}
			}
		}
	}
	p.print(x-44, y-8, 2, "SAMPLE")
}

// letters holds the capitals that print needs, 5 by 7 points each.
var letters = map[rune]string{
	'A': ".###. #...# #...# ##### #...# #...# #...#",
	'C': ".###. #...# #.... #.... #.... #...# .###.",
	'D': "####. #...# #...# #...# #...# #...# ####.",
	'E': "##### #.... #.... ####. #.... #.... #####",
	'F': "##### #.... #.... ####. #.... #.... #....",
	'H': "#...# #...# #...# ##### #...# #...# #...#",
	'I': ".###. ..#.. ..#.. ..#.. ..#.. ..#.. .###.",
	'L': "#.... #.... #.... #.... #.... #.... #####",
	'M': "#...# ##.## #.#.# #.#.# #...# #...# #...#",
	'N': "#...# ##..# #.#.# #..## #...# #...# #...#",
	'O': ".###. #...# #...# #...# #...# #...# .###.",
	'P': "####. #...# #...# ####. #.... #.... #....",
	'R': "####. #...# #...# ####. #.#.. #..#. #...#",
	'S': ".#### #.... #.... .###. ....# ....# ####.",
	'T': "##### ..#.. ..#.. ..#.. ..#.. ..#.. ..#..",
	'Y': "#...# #...# .#.#. ..#.. ..#.. ..#.. ..#..",
	'-': "..... ..... ..... .###. ..... ..... .....",
}

// print writes capitals; scale is the size of a letter's point.
func (p *page) print(x, y, scale int, text string) {
	for _, letter := range text {
		for row, points := range strings.Fields(letters[letter]) {
			for column, point := range points {
				if point == '#' {
					for i := range scale * scale {
						p.dot(x+column*scale+i%scale, y+row*scale+i/scale, 1)
					}
				}
			}
		}
		x += 7 * scale
	}
}

// scanned gives the page as it lies on the glass: a little askew, darker to one
// side, with the grain of the paper and some dust.
func (p *page) scanned() image.Image {
	palette := make(color.Palette, greyLevels)
	for i := range palette {
		palette[i] = color.Gray{Y: uint8(i * 255 / (greyLevels - 1))}
	}
	out := image.NewPaletted(image.Rect(0, 0, pageWidth, pageHeight), palette)
	for y := range pageHeight {
		for x := range pageWidth {
			fromX := x + (y-pageHeight/2)/170
			fromY := y - (x-pageWidth/2)/170
			light := 246 - 22*x/pageWidth - p.random.IntN(12) - p.random.IntN(12)
			if fromX >= 0 && fromY >= 0 && fromX < pageWidth && fromY < pageHeight {
				light -= int(p.ink[fromY][fromX]) * (80 + p.random.IntN(20)) / 100
			} else {
				light = 40 + p.random.IntN(30) // the lid beside the paper
			}
			if p.random.IntN(9000) == 0 {
				light -= 120
			}
			light = min(max(light, 0), 255)
			out.SetColorIndex(x, y, uint8(light*(greyLevels-1)/255))
		}
	}
	return out
}

func abs(n int) int { return max(n, -n) }
