"""FastAPI on uvicorn: GET of one key, with the headers of the sample.

fastapi_app.py SAMPLE PORT KEY; REDIS_URL says where Redis is.
"""

import json
import os
import sys

import uvicorn
from fastapi import FastAPI, Response
from redis.asyncio import BlockingConnectionPool, Redis

sample, port, key = sys.argv[1:4]
with open(sample, encoding="utf-8") as file:
    header = {name: ", ".join(values) for name, values in json.load(file)["header"].items()}
redis = Redis(connection_pool=BlockingConnectionPool.from_url(os.environ["REDIS_URL"], max_connections=32))
app = FastAPI()


@app.get("/")
async def get() -> Response:
    return Response(content=await redis.get(key), headers=header)


uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)
