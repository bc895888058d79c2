-- The Quarto features of the embedded engine that pandoc lacks, second run: on what numbering.lua made of the book, to
-- write callouts, equations and tables for an output's format.

local stringify = pandoc.utils.stringify

-- What only one format shows: its content there, nothing elsewhere.
local function visible(div, format)
  if not div.classes:includes("content-visible") then return nil end
  return div.attributes["when-format"] == format and div.content or {}
end

local html = {
  Math = function(math) -- in MathML a comma is spaced even in braces, as text it is not
    math.text = math.text:gsub("{,}", "\\text{,}")
    return math
  end,
  Header = function(header)
    local number = header.attributes.number
    if number then
      header.content:insert(1, pandoc.Span({ pandoc.Str(number) }, { class = "number" }))
      header.content:insert(2, pandoc.Space())
      header.attributes.number = nil
    end
    return header
  end,
  Table = function(tbl) return pandoc.Div({ tbl }, { class = "scroll" }) end,
  Span = function(span)
    if not span.classes:includes("equation") then return nil end
    local number = span.attributes.number
    span.attributes.number = nil
    local content = pandoc.Inlines({ pandoc.Span(span.content, { class = "scroll" }) })
    if number then content:insert(pandoc.Span({ pandoc.Str("(" .. number .. ")") }, { class = "number" })) end
    span.content = content
    return span
  end,
  Image = function(image)
    image.attributes.chapter = nil
    return image
  end,
  Div = function(div)
    local shown = visible(div, "html")
    if shown then return shown end
    local kind, collapse = div.attributes.kind, div.attributes.collapse
    div.attributes.kind, div.attributes.collapse = nil, nil
    if not collapse then return div end
    local open = collapse == "false" and " open" or ""
    local function tag(text) return pandoc.RawBlock("html", text) end
    return {
      tag('<details class="callout callout-' .. kind .. '"' .. open .. '><summary class="callout-title">'),
      pandoc.Plain(div.content[1].content[1].content),
      tag("</summary>"), div.content[2], tag("</details>"),
    }
  end,
}

local function html_link(doc)
  local page, root = stringify(doc.meta.page), stringify(doc.meta.root)
  return function(link)
    local target = link.attributes.page
    link.attributes.page = nil
    if target and target ~= page then link.target = root .. target .. link.target end
    return link
  end
end

local function raw(text)
  return pandoc.RawBlock("typst", text)
end

local typst = {
  RawBlock = function(block) return block.format == "html" and {} or nil end,
  Figure = function(figure)
    if not figure.classes:includes("tbl") then return nil end
    local tbl = figure.content[1]
    if #figure.content == 1 and tbl.t == "Table" then
      tbl.identifier, tbl.caption = figure.identifier, figure.caption
      return tbl
    end
    local blocks = pandoc.Blocks({ raw("#figure(kind: table, caption: [") })
    blocks:extend(figure.caption.long)
    blocks:insert(raw("], ["))
    blocks:extend(figure.content)
    blocks:insert(raw("]) <" .. figure.identifier .. ">"))
    return blocks
  end,
  Span = function(span)
    if not span.classes:includes("equation") or span.identifier == "" then
      return span.classes:includes("equation") and span.content or nil
    end
    local open = '#math.equation(block: true, numbering: _ => "(' .. span.attributes.number .. ')", ['
    return { pandoc.RawInline("typst", open), span.content[1],
      pandoc.RawInline("typst", "]) <" .. span.identifier .. ">") }
  end,
  Image = function(image)
    local folder = image.attributes.chapter:match("^(.*/)") or ""
    image.src, image.attributes.chapter = "/book/" .. folder .. image.src, nil
    return image
  end,
  Div = function(div)
    local shown = visible(div, "typst")
    if shown then return shown end
    if not div.classes:includes("callout") then return nil end
    local blocks = pandoc.Blocks({ raw('#callout("' .. div.attributes.kind .. '", [') })
    blocks:extend(div.content[1].content)
    blocks:insert(raw("], ["))
    blocks:extend(div.content[2].content)
    blocks:insert(raw("])"))
    return blocks
  end,
  Blocks = function(blocks) -- a line stays on the page of the formula that it introduces
    local function displayed(block)
      local first = block and block.t == "Para" and block.content[1]
      return first and first.t == "Math" and first.mathtype == "DisplayMath"
    end
    local kept = pandoc.Blocks({})
    for i, block in ipairs(blocks) do
      local introduces = block.t == "Para" and not displayed(block) and displayed(blocks[i + 1])
      kept:extend(introduces and { raw("#block(sticky: true)["), block, raw("]") } or { block })
    end
    return kept
  end,
}

function Pandoc(doc)
  if FORMAT == "typst" then return doc:walk(typst) end
  html.Link = html_link(doc)
  local cites = false
  doc:walk({ Cite = function() cites = true end })
  if cites then
    doc.blocks:insert(pandoc.Header(2, "References", { id = "references", class = "unnumbered" }))
    doc.blocks:insert(pandoc.Div({}, { id = "refs" }))
  end
  return doc:walk(html)
end
