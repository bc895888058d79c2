-- The Quarto features of the embedded engine that pandoc lacks, first run: on the whole book, written as JSON. Numbers
-- everything and resolves references; formats.lua then writes each output.

local stringify = pandoc.utils.stringify
local NAMES = { fig = "Figure", tbl = "Table", eq = "Equation", sec = "Section" }
local CALLOUTS = { note = "Note", tip = "Tip", important = "Important", warning = "Warning", caution = "Caution" }
local SPACE = "\u{a0}"

local function kind_of(id)
  return NAMES[id:match("^(%l+)%-") or ""] and id:match("^(%l+)%-")
end

local chapter, chapters, index, problems = nil, {}, {}, {}
local chapter_number, sections, counts = 0, { 0 }, {}

local function problem(needle, message)
  table.insert(problems, { file = chapter.file, needle = needle, message = message })
end

local function enter(div)
  chapter = { file = div.attributes.file, page = div.attributes.page }
end

local function register(id, name, number)
  if index[id] then problem("#" .. id, "label " .. id .. " is used twice") end
  index[id] = { name = name, number = number, page = chapter.page }
end

local function next_number(id)
  local kind = kind_of(id)
  counts[kind] = (counts[kind] or 0) + 1
  local number = (chapter.number and chapter.number .. "." or "") .. counts[kind]
  register(id, NAMES[kind], number)
  return number
end

local function captioned(content, caption, id)
  local label = pandoc.Span({ pandoc.Str(NAMES[kind_of(id)] .. SPACE .. next_number(id) .. ":") }, { class = "label" })
  return pandoc.Figure(content, { pandoc.Plain({ label, pandoc.Space() } .. caption) }, { id = id, class = kind_of(id) })
end

local function number_header(header)
  local unnumbered = header.classes:includes("unnumbered")
  if header.level == 1 then
    counts, sections = {}, { 0 }
    if not unnumbered then chapter_number = chapter_number + 1 end
    chapter.number = not unnumbered and tostring(chapter_number) or nil
    chapter.title = stringify(header)
    table.insert(chapters, chapter)
  end
  if unnumbered or not chapter.number then
    header.classes = { "unnumbered" }
    return header
  end
  for level = header.level + 1, #sections do sections[level] = nil end
  for level = 2, header.level do sections[level] = (sections[level] or 0) + (level == header.level and 1 or 0) end
  header.attributes.number = table.concat({ chapter.number, table.unpack(sections, 2, header.level) }, ".")
  if kind_of(header.identifier) == "sec" then
    register(header.identifier, header.level == 1 and "Chapter" or "Section", header.attributes.number)
  end
  return header
end

local function callout(div, kind)
  local title = { pandoc.Str(CALLOUTS[kind]) }
  if div.attributes.title then
    title = pandoc.utils.blocks_to_inlines(pandoc.read(div.attributes.title, "markdown").blocks)
  elseif div.content[1] and div.content[1].t == "Header" then
    title = div.content:remove(1).content
  end
  return pandoc.Div({
    pandoc.Div({ pandoc.Para(title) }, { class = "callout-title" }),
    pandoc.Div(div.content, { class = "callout-body" }),
  }, pandoc.Attr("", { "callout", "callout-" .. kind }, { kind = kind, collapse = div.attributes.collapse }))
end

local function number_div(div)
  if div.attributes.file then
    enter(div)
    return nil
  end
  local callout_kind = (div.classes[1] or ""):match("^callout%-(%l+)$")
  if CALLOUTS[callout_kind or ""] then return callout(div, callout_kind) end
  local kind = kind_of(div.identifier)
  if kind == "fig" or kind == "tbl" then
    local caption = div.content[#div.content]
    if #div.content < 2 or caption.t ~= "Para" then
      return problem(div.identifier, div.identifier .. " needs some output and, as its last paragraph, a caption")
    end
    div.content:remove()
    return captioned(div.content, caption.content, div.identifier)
  end
end

local function has_equation(inlines)
  for _, inline in ipairs(inlines) do
    local kind = inline.t
    if kind == "Math" and inline.mathtype == "DisplayMath" then return true end
    if kind == "Str" and inline.text:find("^{#eq%-") then return true end
  end
  return false
end

local function number_equations(block)
  if not has_equation(block.content) then return nil end -- most have none, and to make a list anew takes long
  local result = pandoc.Inlines({})
  local skip = 0
  for i, inline in ipairs(block.content) do
    local tail = block.content[i + 2]
    local id = tail and tail.t == "Str" and tail.text:match("^{#(eq%-[^}]+)}")
    if i <= skip then
      -- part of the equation's label
    elseif inline.t == "Math" and inline.mathtype == "DisplayMath" then
      local span = pandoc.Span({ inline }, { class = "equation" })
      if id and block.content[i + 1].t == "Space" then
        span.identifier, span.attributes.number = id, next_number(id)
        local rest = tail.text:match("}(.*)$")
        skip = i + 2
        result:insert(span)
        if rest ~= "" then result:insert(pandoc.Str(rest)) end
      else
        result:insert(span)
      end
    else
      if inline.t == "Str" and inline.text:match("^{#eq%-") then
        problem(inline.text, "an equation's label must follow its $$ after one space")
      end
      result:insert(inline)
    end
  end
  block.content = result
  return block
end

local numbering = {
  traverse = "topdown",
  Header = number_header,
  Div = number_div,
  Para = number_equations,
  Plain = number_equations,
  Inlines = function(inlines) -- a number and its per cent stay on one line
    local changed = false
    for i, after in ipairs(inlines) do
      if i > 2 and after.t == "Str" and after.text:find("^%%") and inlines[i - 1].t == "Space" then
        local before = inlines[i - 2]
        if before.t == "Str" and before.text:find("%d$") then
          inlines[i - 1] = pandoc.Str(SPACE)
          changed = true
        end
      end
    end
    return changed and inlines or nil
  end,
  Figure = function(figure)
    if kind_of(figure.identifier) == "fig" then
      return captioned(figure.content, pandoc.utils.blocks_to_inlines(figure.caption.long), figure.identifier)
    end
  end,
  Table = function(tbl)
    -- Both formats share out the width by content better than pandoc does by the length of the source's rules.
    tbl.colspecs = tbl.colspecs:map(function(spec) return { spec[1], nil } end)
    local id = tbl.identifier
    if kind_of(id) == "tbl" then
      local caption = pandoc.utils.blocks_to_inlines(tbl.caption.long)
      tbl.identifier, tbl.caption = "", {}
      return captioned({ tbl }, caption, id)
    end
    return tbl
  end,
  Image = function(image)
    if image.src:match("^%a+:") then return problem(image.src, "images must be files of the project") end
    image.attributes.chapter = chapter.file
    return image
  end,
}

-- Quarto gives classes and attributes meanings that this engine lacks.
local function check(element)
  for _, class in ipairs(element.classes) do
    if class ~= "unnumbered" and class ~= "uri" then problem("." .. class, "unknown class ." .. class) end
  end
  for key in pairs(element.attributes) do problem(key .. "=", "unknown attribute " .. key) end
end

local checking = {
  traverse = "topdown",
  Div = function(div) if div.attributes.file then enter(div) end end,
  Header = check, Span = check, Link = check, Code = check, Image = check,
}

local function resolver(sources)
  local function reference(citation)
    local entry = index[citation.id]
    local text = citation.mode == "SuppressAuthor" and entry.number or entry.name .. SPACE .. entry.number
    return pandoc.Link({ pandoc.Str(text) }, "#" .. citation.id, "", { class = "xref", page = entry.page })
  end
  return {
    traverse = "topdown",
    Div = function(div) if div.attributes.file then enter(div) end end,
    Cite = function(cite)
      local result, found = pandoc.Inlines({}), 0
      for i, citation in ipairs(cite.citations) do
        if index[citation.id] then
          found = found + 1
          if i > 1 then result:extend({ pandoc.Str(","), pandoc.Space() }) end
          result:insert(reference(citation))
          if #citation.prefix + #citation.suffix > 0 then
            problem("@" .. citation.id, "text beside the reference @" .. citation.id .. " in its brackets")
          end
        elseif not sources[citation.id] then
          local why = kind_of(citation.id) and "has no such label in the book" or "is neither a label nor in the bibliography"
          problem("@" .. citation.id, "@" .. citation.id .. " " .. why)
        end
      end
      if found > 0 and found < #cite.citations then
        problem("@" .. cite.citations[1].id, "references and citations in one pair of brackets")
      end
      return found > 0 and result or nil
    end,
  }
end

function Pandoc(doc)
  local sources = {}
  for _, source in ipairs(pandoc.utils.references(doc)) do
    sources[source.id] = true
  end
  doc = doc:walk(checking):walk(numbering):walk(resolver(sources))
  doc.meta.book = pandoc.json.encode({ chapters = chapters, problems = problems })
  return doc
end
