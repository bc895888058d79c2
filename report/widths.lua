-- Typst gives columns of sentences too little room beside columns of words: those get what their longest cell needs, and
-- sentences share the rest. A table that fits has no widths.
local SHEET = 125 -- characters in a line of a table
local TOGETHER = 12 -- rows of a table that stay on one page

local stringify = pandoc.utils.stringify

local function widths(tbl)
  local longest, all, sentences, long = {}, 0, 0, 0
  local function look(rows)
    for _, row in ipairs(rows) do
      for i, cell in ipairs(row.cells) do
        longest[i] = math.max(longest[i] or 3, utf8.len(stringify(cell.contents)) or 0)
      end
    end
  end
  look(tbl.head.rows)
  for _, body in ipairs(tbl.bodies) do look(body.body) end
  for _, length in ipairs(longest) do
    all = all + length
    if length > SHEET / 4 then sentences, long = sentences + length, long + math.sqrt(length) end
  end
  if all <= 2 * SHEET or long == 0 then return nil end
  local rest = SHEET - (all - sentences) - 2 * #longest
  for i, length in ipairs(longest) do
    local share = length > SHEET / 4 and rest * math.sqrt(length) / long or length + 2
    tbl.colspecs[i] = { tbl.colspecs[i][1], share / SHEET }
  end
  return tbl
end

-- What the first column says once spans the rows that it is about: no page break parts them, unless they are many.
local function spans(tbl)
  for _, body in ipairs(tbl.bodies) do
    local rows, last = body.body, #body.body
    for i = #rows, 1, -1 do
      if stringify(rows[i].cells[1].contents) ~= "" then
        if last - i < TOGETHER then
          rows[i].cells[1].row_span = last - i + 1
          for below = i + 1, last do rows[below].cells:remove(1) end
        end
        last = i - 1
      end
    end
  end
  return tbl
end

return { { Table = widths }, { Table = spans } }
