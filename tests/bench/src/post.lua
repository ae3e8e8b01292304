-- Posts a body of as many bytes as its argument says: `wrk -s post.lua URL -- 65536`.
function init(arguments)
   wrk.method = "POST"
   wrk.body = string.rep("x", tonumber(arguments[1]))
end
