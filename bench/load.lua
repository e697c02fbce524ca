-- For bench/load.py: posts one clip again and again, intents only, and counts the answers by status,
-- and those of 429 that do not say when to come back.
local clip = io.open(os.getenv("CLIP"), "rb")
local part = '--x\r\nContent-Disposition: form-data; name='
local body = part .. '"file"; filename="command.wav"\r\n\r\n' .. clip:read("*a") .. "\r\n"
  .. part .. '"transcribe"\r\n\r\nfalse\r\n--x--\r\n'
local threads = {}

function setup(thread) threads[#threads + 1] = thread end

function init()
  statuses = {}
  hasty = 0
  request_bytes = wrk.format("POST", "/test-intent", { ["Content-Type"] = "multipart/form-data; boundary=x" }, body)
end

function request() return request_bytes end

function response(status, headers)
  statuses[status] = (statuses[status] or 0) + 1
  if status == 429 and not headers["retry-after"] then hasty = hasty + 1 end
end

function done(summary, latency)
  local counts, hasty = {}, 0
  for _, thread in ipairs(threads) do
    hasty = hasty + thread:get("hasty")
    for status, n in pairs(thread:get("statuses")) do counts[#counts + 1] = string.format('"%d": %d', status, n) end
  end
  local errors = summary.errors
  print(string.format(
    'RESULT {"seconds": %.3f, "statuses": {%s}, "p50_ms": %.2f, "p99_ms": %.2f, "broken": %d, "without_retry_after": %d}',
    summary.duration / 1e6, table.concat(counts, ", "), latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.timeout, hasty))
end
